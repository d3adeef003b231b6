"""Models that are not there, not whole, or not chat models."""

import http.server
import json
import struct
import threading
from collections.abc import Iterator

import pytest

from heretic_tui import paths
from heretic_tui.engine.errors import EngineError


@pytest.fixture
def run(heretic, profile, runs_dir):
    """Run a study of a model with the short profile; a model that cannot be loaded leaves no run behind."""

    def study(model: object, *more: object):
        outcome = heretic("run", model, "--profile", profile(), "--runs-dir", runs_dir, *more)
        if outcome.code:
            assert not runs_dir.exists()
        return outcome

    return study


def test_the_tiny_model_is_a_good_one(run, model_dir):
    assert run(model_dir).code == 0


def test_a_folder_that_does_not_exist(run, tmp_path):
    run(tmp_path / "nowhere").is_plain(tmp_path / "nowhere", "no folder", "Give a folder")


def test_a_gguf_file_that_does_not_exist(run, tmp_path):
    run(tmp_path / "model.gguf").is_plain("model.gguf", "Check the path")


def test_a_file_that_is_no_model(run, prompts):
    run(prompts["plain"]).is_plain(prompts["plain"], "Give a folder")


def test_a_folder_without_config(run, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    run(folder).is_plain(folder, "config.json")


def test_a_broken_config(run, model_copy):
    (model_copy / "config.json").write_text('{"model_type": "llama",', encoding="utf-8")
    run(model_copy).is_plain(model_copy, "opy")


def test_an_unknown_architecture(run, model_copy):
    config = json.loads((model_copy / "config.json").read_text())
    (model_copy / "config.json").write_text(json.dumps({**config, "model_type": "nosuch"}))
    run(model_copy).is_plain("'nosuch'", "newer transformers")


def test_a_config_without_model_type(run, model_copy):
    (model_copy / "config.json").write_text("{}")
    run(model_copy).is_plain(model_copy, "model_type", "Copy")


def test_no_tokenizer(run, model_copy):
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (model_copy / name).unlink(missing_ok=True)
    run(model_copy).is_plain(model_copy, "no tokenizer", "tokenizer.json")


def test_a_cut_tokenizer(run, model_copy):
    whole = (model_copy / "tokenizer.json").read_bytes()
    (model_copy / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
    run(model_copy).is_plain(model_copy, "opy")


def test_no_chat_template(run, model_copy):
    (model_copy / "chat_template.jinja").unlink()
    run(model_copy).is_plain(model_copy, "chat template", "instruction-tuned", "chat_template.jinja")


def test_a_chat_template_with_a_syntax_error(run, model_copy):
    (model_copy / "chat_template.jinja").write_text("{% for message in %}")
    run(model_copy).is_plain("chat template", model_copy, "Check the template")


def test_a_chat_template_that_refuses_everything(run, model_copy):
    (model_copy / "chat_template.jinja").write_text("{{ raise_exception('only cats may speak') }}")
    run(model_copy).is_plain("only cats may speak", "Check the template")


def test_a_truncated_safetensors_file(run, model_copy):
    weights = model_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])
    run(model_copy).is_plain(model_copy, "corrupt or truncated", "again")


@pytest.mark.parametrize(
    "content", [b"", b"not a model", struct.pack("<Q", 10**12) + b"{}"], ids=["empty", "text", "long"]
)
def test_a_corrupt_safetensors_file(run, model_copy, content):
    (model_copy / "model.safetensors").write_bytes(content)
    run(model_copy).is_plain(model_copy, "corrupt or truncated", "again")


def test_weights_that_are_not_numbers(run, model_copy):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(model_copy / "model.safetensors")
    tensors["model.embed_tokens.weight"] = torch.full_like(tensors["model.embed_tokens.weight"], torch.nan)
    save_file(tensors, model_copy / "model.safetensors", metadata={"format": "pt"})
    run(model_copy).is_plain(model_copy, "not finite", "damaged")


def test_a_checkpoint_that_lacks_tensors(run, model_copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model_copy / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, model_copy / "model.safetensors", metadata={"format": "pt"})
    run(model_copy).is_plain("lacks 1 of", "model.layers.1.mlp.down_proj.weight", "again")


def test_a_tensor_of_the_wrong_shape(run, model_copy):
    config = json.loads((model_copy / "config.json").read_text())
    (model_copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    run(model_copy).is_plain(model_copy, "again")


def test_a_missing_shard(run, model_copy):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(model_copy).save_pretrained(model_copy, max_shard_size="60KB")
    (model_copy / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(model_copy.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    run(model_copy).is_plain(shards[1].name, "opy")


def test_no_weights_at_all(run, model_copy):
    (model_copy / "model.safetensors").unlink()
    run(model_copy).is_plain(model_copy, "no safetensors weights")


def test_pickled_weights_are_not_loaded_unasked(run, model_copy):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(model_copy / "model.safetensors"), model_copy / "pytorch_model.bin")
    (model_copy / "model.safetensors").unlink()
    run(model_copy).is_plain(model_copy, "no safetensors weights", "allow_pickle=true")
    assert run(model_copy, "--set", "allow_pickle=true").code == 0


def test_a_corrupt_gguf_file(run, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 10)
    run(file).is_plain(file, "corrupt", "again")


def test_an_encoder_is_no_language_model(run, model_copy):
    from transformers import BertConfig, BertModel

    small = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=300)
    BertModel(small).save_pretrained(model_copy)
    run(model_copy).is_plain(model_copy, "lacks", "cls.predictions")


def test_a_name_that_is_no_id_says_so(run):
    run("what/is/this").is_plain("what/is/this", "organisation/model")


def test_an_offline_machine_that_has_no_copy(processes, profile, runs_dir):
    outcome = processes.run("run", "some/model", "--profile", profile(), "--runs-dir", runs_dir, HF_HUB_OFFLINE="1")
    outcome.is_plain("some/model", "could not be reached", "path of a model's folder")
    assert not runs_dir.exists()


def online(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let the libraries take this address for the hub's."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(paths.cache_dir()))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)


def test_a_hub_that_does_not_answer(run, monkeypatch):
    online(monkeypatch, "http://127.0.0.1:9")
    run("some/model").is_plain("some/model", "could not be reached", "network")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub that knows a gated model, a model of one commit, and nothing else."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gated = "/gated/" in self.path
            code = "GatedRepo" if gated else "RevisionNotFound" if "/known/" in self.path else "RepoNotFound"
            self.send_response(403 if gated else 404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    online(monkeypatch, address)
    yield address
    server.shutdown()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("missing/model", (), ("There is no model missing/model on the hub", "Check the spelling")),
        ("gated/model", (), ("gated", "hf auth login")),
        ("known/model", ("--set", "model_commit=abc"), ("no commit abc", "model_commit")),
    ],
)
def test_what_the_hub_refuses(run, name, more, words):
    run(name, *more).is_plain(*words)


def test_a_data_set_that_the_hub_does_not_have(processes, profile, runs_dir, hub, model_dir):
    outcome = processes.run(
        "run", model_dir, "--profile", profile(bad="missing/prompts"), "--runs-dir", runs_dir,
        HF_HUB_OFFLINE="0", HF_ENDPOINT=hub,
    )  # fmt: skip
    outcome.is_plain("missing/prompts", "was not found", "Check its name")


def test_a_data_set_of_the_hub_without_network(heretic, profile, runs_dir, model_dir):
    outcome = heretic("run", model_dir, "--profile", profile(bad="some/prompts"), "--runs-dir", runs_dir)
    outcome.is_plain("some/prompts", "could not be reached", "give a file of prompts")


def test_json_reports_the_failure_as_an_object(heretic, profile, runs_dir, tmp_path):
    outcome = heretic("run", tmp_path / "nowhere", "--profile", profile(), "--runs-dir", runs_dir, "--json")
    assert outcome.code == 1
    assert outcome.objects[-1]["event"] == "failed"
    assert outcome.objects[-1]["exit_code"] == 1
    assert "nowhere" in outcome.objects[-1]["error"]


def test_debug_shows_the_traceback(run, model_copy):
    (model_copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match="corrupt or truncated"):
        run(model_copy, "--debug")


def test_a_prompt_longer_than_the_context(run, model_dir, profile, heretic, runs_dir, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("Short.\n" + "word " * 2 * 128 + "\n")
    outcome = heretic("run", model_dir, "--profile", profile(bad=long), "--runs-dir", runs_dir)
    outcome.is_plain("Prompt 2 of", long, "tokens long", "context of 128 tokens", "Shorten")


def test_a_response_that_leaves_no_room_in_the_context(model_dir, profile, heretic, runs_dir):
    outcome = heretic("run", model_dir, "--profile", profile(max_response_length=128), "--runs-dir", runs_dir)
    outcome.is_plain("does not fit", "lower max_response_length")
