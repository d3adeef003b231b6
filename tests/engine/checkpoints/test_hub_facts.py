"""Facts of a model that is only on the hub: asked of a small hub of our own, which also refuses and breaks."""

import http.server
import json
import threading

import fake_models as fake
import huggingface_hub.constants
import pytest

from heretic_tui.engine.checkpoints import model_files
from heretic_tui.engine.checkpoints.checkpoint import facts_of_hub
from heretic_tui.engine.errors import EngineError


class Hub:
    """Repositories by id: their files, and what the hub itself tells of them."""

    def __init__(self):
        self.files, self.told, self.asked, self.status = {}, {}, [], 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def publish(self, name, files, **told):
        self.files[name], self.told[name] = files, told

    def answer(self, path):
        """Status, headers and body for a path."""
        self.asked.append(path)
        self.may_answer.wait(60)
        if self.status:
            return self.status, {}, b""
        path = path.partition("?")[0]
        for name, files in self.files.items():
            if path == f"/api/models/{name}":
                siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
                info = {"id": name, "sha": fake.COMMIT, "siblings": siblings, **self.told[name]}
                return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
            for file, content in files.items():
                if path == f"/{name}/resolve/{fake.COMMIT}/{file}":
                    if self.told[name].get("gated"):
                        return 403, {"X-Error-Code": "GatedRepo"}, b""
                    return 200, {}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub without any model, which the libraries take for the real one."""
    hub = Hub()

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    online(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    server.shutdown()
    server.server_close()


def online(monkeypatch, address):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )


def refusal(name):
    with pytest.raises(EngineError) as caught:
        facts_of_hub(name)
    assert caught.value.remedy
    return caught.value.cause


def test_a_model_of_the_hub_is_known_without_downloading_it(hub, tmp_path):
    files = fake.model_bytes() | {"chat_template.jinja": b"{{ messages }}"}
    parameters = {"BF16": 900, "F32": 100}
    hub.publish("org/small", files, cardData={"license": "mit"}, safetensors={"parameters": parameters, "total": 1000})
    facts = facts_of_hub("org/small")
    assert (facts.name, facts.architecture, facts.layers, facts.width) == ("org/small", "LlamaForCausalLM", 2, 8)
    assert (facts.parameters, facts.dtype, facts.size) == (1000, "bfloat16", len(files["model.safetensors"]))
    assert (facts.licence, facts.chat_template, facts.pickled) == ("mit", True, False)
    assert facts.writers_expected == {"attn.o_proj": 2, "mlp.down_proj": 2}
    assert facts.writer_parameters == 2 * (64 + 128)
    assert not any("model.safetensors" in path for path in hub.asked)
    assert not (tmp_path / "cache").exists()


def test_the_template_may_stand_in_the_tokenizer_settings(hub):
    settings = {"tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}).encode()}
    hub.publish("org/small", fake.model_bytes() | settings)
    assert facts_of_hub("org/small").chat_template


def test_a_base_model_with_pickled_weights_and_several_licences(hub):
    files = {name: content for name, content in fake.model_bytes().items() if name != "model.safetensors"}
    hub.publish("org/old", files | {"pytorch_model.bin": b"12345"}, cardData={"license": ["gpl-3.0", "mit"]})
    facts = facts_of_hub("org/old")
    assert (facts.pickled, facts.size, facts.parameters, facts.chat_template) == (True, 5, None, False)
    assert facts.licence == "gpl-3.0"


def test_experts_are_expected_from_the_configuration(hub):
    hub.publish("org/experts", fake.model_bytes(num_experts=4, moe_intermediate_size=4))
    facts = facts_of_hub("org/experts")
    assert facts.writers_expected["mlp.down_proj"] == 8
    assert facts.writer_parameters == 2 * 64 + 8 * 32


def test_values_in_four_bits_are_unpacked(hub):
    files = fake.model_bytes(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    hub.publish("org/small", files, safetensors={"parameters": {"U8": 500, "BF16": 50}, "total": 550})
    assert facts_of_hub("org/small").parameters == 1050


def test_a_repository_of_gguf_files_says_what_to_do(hub):
    hub.publish("org/quantized", {"small.Q4_0.gguf": b"GGUF"})
    assert "only GGUF files" in refusal("org/quantized")


def test_a_repository_that_is_no_model(hub):
    hub.publish("org/words", {"README.md": b""})
    assert "no config.json" in refusal("org/words")


def test_a_model_that_does_not_exist(hub):
    assert "There is no model org/nowhere on the hub" in refusal("org/nowhere")


def test_a_gated_model(hub):
    hub.publish("org/gated", fake.model_bytes(), gated="manual")
    assert "org/gated is gated" in refusal("org/gated")


@pytest.mark.parametrize("name", ["not/an/id", "/absolute", "", "a b", "..", "x" * 500, "new\nline", "~/models"])
@pytest.mark.usefixtures("hub")
def test_what_is_no_id_is_not_asked_for(name):
    assert "neither a folder here nor the id" in refusal(name)


def test_a_damaged_configuration_on_the_hub(hub):
    hub.publish("org/small", fake.model_bytes() | {"config.json": b"{"})
    assert "config.json of org/small is damaged" in refusal("org/small")


def test_a_hub_in_trouble(hub):
    hub.status = 500
    assert "answered 500" in refusal("org/small")


def test_a_hub_that_answers_nonsense(hub):
    hub.publish("org/small", fake.model_bytes(), safetensors="?")
    assert "org/small" in refusal("org/small")


def test_a_hub_that_does_not_answer_in_time(hub, monkeypatch):
    monkeypatch.setattr(model_files, "PATIENCE", 0.2)
    hub.may_answer.clear()
    assert "could not be reached" in refusal("org/small")
    hub.may_answer.set()


def test_no_network(monkeypatch):
    online(monkeypatch, "http://127.0.0.1:9")
    assert "could not be reached" in refusal("org/small")


def test_a_machine_that_must_stay_offline(monkeypatch):
    from huggingface_hub.errors import OfflineModeIsEnabled

    def refuse(*_, **__):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    assert "HF_HUB_OFFLINE forbids" in refusal("org/small")
