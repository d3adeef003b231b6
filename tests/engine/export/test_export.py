import json
import shutil
import threading
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, result, run, same_direction, same_weights, tiny_model, unit, weights_of

from heretic_tui.engine import background
from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.chat.conversation import ChatMessage, OfTrial, Original, Sampling, Turn
from heretic_tui.engine.dtypes import EXPORT_DTYPES, export_size
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Evaluated, Exported, Progress, Tick, Verified
from heretic_tui.engine.export.adapter import export_adapter
from heretic_tui.engine.export.card import model_card
from heretic_tui.engine.export.merged import export_merged, shard_bytes
from heretic_tui.engine.export.plain import ablated_states
from heretic_tui.engine.export.verification import same_bits, tensor_files, verify
from heretic_tui.engine.loading.session import Session
from heretic_tui.engine.parameters import AblationParameters, Kernel
from heretic_tui.engine.pipeline import chat
from heretic_tui.engine.pipeline import export as export_job
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.runs.run import DIRECTIONS
from heretic_tui.profile.schema import Profile

RECORD = TrialRecord(
    1,
    AblationParameters(1.3, {"attn.o_proj": Kernel(1.2, 1.0, 0.4, 1.5), "mlp.down_proj": Kernel(0.7, 2.0, 0.1, 1.0)}),
    {"refusals": Score(0.5, 3, 6)},
    1.0,
)
EDITED = 3 + 2
"""Matrices that the record's kernels reach in a model of three layers."""


@pytest.fixture(scope="module")
def session(tiny_folder, short_profile):
    session = Session()
    result(session.load(str(tiny_folder), short_profile))
    return session


@pytest.fixture(autouse=True)
def untouched(session):
    before = weights_of(session.model)
    yield
    assert same_weights(session.model, before)


def leftovers(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def stored(folder):
    return {name: load_file(file)[name] for name, file in tensor_files(folder).items()}


def held(model, directions, record, profile):
    """The weights of a model while a trial is measured."""
    with ablated(model, directions, record.parameters, style_of(profile)):
        return weights_of(model)


# What is written


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("normalization", ["none", "full", "columns"])
def test_an_export_holds_the_weights_that_the_trial_was_measured_with(tmp_path, architecture, normalization):
    from transformers import AutoModelForCausalLM

    model, profile = tiny_model(architecture), Profile(row_normalization=normalization)
    directions, before = same_direction(model, unit()), weights_of(model)
    expected = held(model, directions, RECORD, profile)
    events, written = run(export_merged(model, directions, RECORD, profile, tmp_path / "out"))
    (verified,) = (event for event in events if isinstance(event, Verified))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert again.state_dict().keys() == expected.keys()
    for name, weights in again.state_dict().items():
        assert same_bits(weights, expected[name]), name
    biases = sum(writer.bias is not None for writer in model.writers[:6])
    assert verified.changed == EDITED + (EDITED if biases else 0)
    assert verified.changed + verified.identical == verified.tensors == len(stored(tmp_path / "out"))
    assert written.size == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert same_weights(model, before)


def test_the_live_weights_are_never_touched(session, study, tmp_path):
    before = weights_of(session.model)
    for _ in export_job(study, 1, tmp_path / "out", load=session.load):
        assert same_weights(session.model, before)


def test_an_export_tells_how_far_it_is(session, study, tmp_path):
    events, _ = run(export_job(study, 1, tmp_path / "out", load=session.load))
    for phase, unit_ in (("export", "B"), ("verify", "tensors")):
        found = [event for event in events if isinstance(event, Progress) and event.phase == phase]
        assert {event.unit for event in found} == {unit_}
        done = [event.done for event in found]
        assert done == sorted(done)
        assert done[-1] == found[-1].total
    lasting = [event for event in events if not event.replaceable]
    assert [type(event).__name__ for event in lasting] == ["ModelLoaded", "Verified", "Exported"]


@pytest.mark.parametrize("dtype", [None, *EXPORT_DTYPES])
def test_the_size_is_known_beforehand(session, study, tmp_path, dtype):
    result(export_job(study, 1, tmp_path / "out", dtype=dtype, load=session.load))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in stored(tmp_path / "out").values())
    assert export_size(study.model()[0], dtype) == weights


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("dtype", EXPORT_DTYPES)
@pytest.mark.parametrize("loaded", [torch.float32, torch.bfloat16])
def test_a_dtype_is_cast_while_saving(tmp_path, architecture, dtype, loaded):
    from transformers import AutoModelForCausalLM

    model, profile = tiny_model(architecture), Profile(row_normalization="full")
    model.network.to(loaded)
    directions, before = same_direction(model, unit()), weights_of(model)
    expected = held(model, directions, RECORD, profile)
    events, _ = run(export_merged(model, directions, RECORD, profile, tmp_path / "out", dtype=dtype))
    assert any(isinstance(event, Verified) for event in events)
    assert {str(tensor.dtype) for tensor in stored(tmp_path / "out").values()} == {f"torch.{dtype}"}
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert again.dtype == getattr(torch, dtype)
    assert json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["dtype"] == dtype
    for name, weights in again.state_dict().items():
        assert same_bits(weights, expected[name].to(getattr(torch, dtype))), name
    assert model.dtype == loaded
    assert same_weights(model, before)


def test_tied_weights_are_written_once_in_any_dtype(tmp_path):
    model = tiny_model("gpt2")
    embeddings, head = model.network.get_input_embeddings(), model.network.get_output_embeddings()
    assert embeddings.weight.data_ptr() == head.weight.data_ptr()
    for dtype in (None, "float16"):
        to = tmp_path / str(dtype)
        result(export_merged(model, same_direction(model, unit()), RECORD, Profile(), to, dtype=dtype))
        assert "lm_head.weight" not in stored(to)


def test_what_has_a_dtype_of_its_own_keeps_it():
    model = tiny_model()
    model.network.model.norm.weight.data = model.network.model.norm.weight.double()
    states = ablated_states(model, same_direction(model, unit()), RECORD, Profile(), "float16", lambda _: None)
    assert states.ablated["model.norm.weight"].dtype == torch.float64
    assert states.ablated["lm_head.weight"].dtype == torch.float16


@pytest.mark.parametrize("size", ["40KB", 40_000])
def test_shards_are_as_large_as_is_asked_for(session, study, tmp_path, size):
    events, _ = run(export_job(study, 1, tmp_path / "out", max_shard_size=size, load=session.load))
    files = list((tmp_path / "out").glob("model-*.safetensors"))
    assert len(files) > 3
    assert all(path.stat().st_size < 60_000 for path in files)
    assert any(isinstance(event, Verified) for event in events)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500 MB", 5 * 10**8), ("0.5gb", 5 * 10**8), ("2GiB", 2**31), ("700B", 700), (40_000, 40_000)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert shard_bytes(text) == size


@pytest.mark.parametrize("text", ["", "rubbish", "5", "-1GB", "0GB", 0, -5, "5 XB"])
def test_a_size_that_is_none_is_refused_before_anything_is_loaded(study, tmp_path, text):
    with pytest.raises(EngineError, match="A file cannot be"):
        run(export_job(study, 1, tmp_path / "out", max_shard_size=text, load=None))


@pytest.mark.parametrize("adapter", [False, True])
def test_every_file_of_an_export_has_ordinary_permissions(session, study, tmp_path, adapter):
    (tmp_path / "ordinary").touch()
    result(export_job(study, 1, tmp_path / "out", adapter=adapter, load=session.load))
    assert {path.stat().st_mode for path in (tmp_path / "out").iterdir()} == {(tmp_path / "ordinary").stat().st_mode}


def test_an_unknown_dtype_is_refused_before_anything_is_loaded(study, tmp_path):
    with pytest.raises(EngineError, match="cannot be exported as int8"):
        run(export_job(study, 1, tmp_path / "out", dtype="int8", load=None))


def test_an_adapter_can_be_cast_too(session, study, tmp_path):
    for dtype, expected in ((None, torch.float32), ("bfloat16", torch.bfloat16)):
        to = tmp_path / str(dtype)
        _, exported = run(export_job(study, 1, to, adapter=True, dtype=dtype, load=session.load))
        assert exported.form == "adapter"
        assert {tensor.dtype for tensor in load_file(to / "adapter_model.safetensors").values()} == {expected}


# Verification


def test_tensors_that_the_class_does_not_know_are_kept(tiny_folder, tmp_path):
    source = shutil.copytree(tiny_folder, tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    extra = {"model.later.head.weight": torch.ones(3)}
    save_file({**tensors, **extra}, source / "model.safetensors", {"format": "pt"})
    model = result(Session().load(str(source), Profile()))
    events, _ = run(export_merged(model, same_direction(model, unit()), RECORD, Profile(), tmp_path / "out"))
    (verified,) = (event for event in events if isinstance(event, Verified))
    assert verified.unknown == ()
    assert verified.tensors == len(tensors) + 1
    assert torch.equal(stored(tmp_path / "out")["model.later.head.weight"], torch.ones(3))


def test_an_export_without_verification_says_nothing_of_one(session, study, tmp_path):
    events, _ = run(export_job(study, 1, tmp_path / "out", verify=False, load=session.load))
    assert not any(isinstance(event, Verified) for event in events)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def spoiled(monkeypatch, spoil):
    """Let the library write something else than it was given."""
    from transformers import modeling_utils

    save = modeling_utils.safe_save_file
    monkeypatch.setattr(modeling_utils, "safe_save_file", lambda tensors, *more, **o: save(spoil(tensors), *more, **o))


def one_bit(name):
    def flip(tensors):
        changed = tensors[name].clone()
        changed.view(torch.int32).flatten()[5] ^= 1
        return {**tensors, name: changed}

    return flip


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_bit("model.embed_tokens.weight"), "embed_tokens.weight is not what was computed"),
        (one_bit("model.layers.1.self_attn.o_proj.weight"), "o_proj.weight is not what was computed"),
        (lambda tensors: {k: v for k, v in tensors.items() if "norm" not in k}, "lacks .* and 4 more"),
        (lambda tensors: {**tensors, "model.surplus": torch.ones(1)}, "holds model.surplus"),
        (lambda tensors: {**tensors, "lm_head.weight": tensors["lm_head.weight"].T.contiguous()}, "has the shape"),
        (lambda tensors: {**tensors, "lm_head.weight": tensors["lm_head.weight"].half()}, "is not what was computed"),
    ],
)
def test_an_export_that_is_not_what_it_should_be_takes_nobodys_place(
    session, study, tmp_path, monkeypatch, spoil, message
):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old", encoding="utf-8")
    monkeypatch.setattr(session.model, "source", None)
    spoiled(monkeypatch, spoil)
    with pytest.raises(EngineError, match=message):
        run(export_job(study, 1, target, overwrite=True, load=session.load))
    assert [path.name for path in target.iterdir()] == ["old.txt"]
    assert not leftovers(tmp_path)


def test_a_file_that_cannot_be_read_back_is_told(session, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(EngineError, match="cannot be read back"):
        verify(tmp_path, {}, {}, None, lambda *_: None)


def test_a_shape_that_the_source_has_otherwise_is_told(tmp_path):
    for name, length in (("source", 3), ("out", 4)):
        (tmp_path / name).mkdir()
        save_file({"a": torch.ones(length)}, tmp_path / name / "model.safetensors")
    state = {"a": torch.ones(4)}
    with pytest.raises(EngineError, match=r"a has the shape \(4,\)"):
        verify(tmp_path / "out", state, state, tmp_path / "source", lambda *_: None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), True),
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), False),
        (torch.ones(2, 3), torch.ones(3, 2), False),
        (torch.ones(2, 3).T, torch.ones(3, 2), True),
        (torch.tensor(True), torch.tensor(True), True),
        (torch.empty(0), torch.empty(0), True),
    ],
)
def test_bits_are_what_counts(one, other, same):
    assert same_bits(one, other) is same


def test_an_export_that_is_loaded_afresh_has_the_scores_of_its_trial(session, study, tmp_path):
    events, exported = run(export_job(study, 2, tmp_path / "out", verify_scores=True, load=session.load))
    assert isinstance(exported, Exported)
    (evaluated,) = (event for event in events if isinstance(event, Evaluated))
    record = study.record(2)
    assert evaluated.scores["refusals"] == record.scores["refusals"]
    assert evaluated.scores["kl_divergence"].value == pytest.approx(record.scores["kl_divergence"].value, rel=1e-6)
    assert evaluated.base_scores == study.base_scores()


def test_an_adapter_cannot_be_measured_by_itself(study, tmp_path):
    with pytest.raises(EngineError, match="adapter"):
        run(export_job(study, 1, tmp_path / "out", adapter=True, verify_scores=True, load=None))


# Stopping


@pytest.mark.parametrize("adapter", [False, True])
def test_an_export_that_is_closed_anywhere_leaves_nothing(session, study, tmp_path, adapter):
    before = weights_of(session.model)
    steps = 0
    while True:
        job = export_job(study, 1, tmp_path / "out", adapter=adapter, load=session.load)
        events = list(islice(job, steps))
        job.close()
        assert same_weights(session.model, before)
        assert not leftovers(tmp_path)
        if any(isinstance(event, Exported) for event in events):
            break
        assert not (tmp_path / "out").exists()
        steps += 1
    assert steps > 2


class Stuck:
    """A write that goes on, however often it is told to stop, until it is released."""

    def __init__(self, monkeypatch, model, *, writes):
        self.began, self.release, self.ended = threading.Event(), threading.Event(), threading.Event()
        save = model.network.save_pretrained

        def slow(folder, **options):
            try:
                self.began.set()
                if writes:
                    (Path(folder) / "first.bin").write_bytes(b"1")
                self.release.wait(60)
                save(folder, **options)
            finally:
                self.ended.set()

        monkeypatch.setattr(model, "source", None)  # so that the library writes it
        monkeypatch.setattr(model.network, "save_pretrained", slow)
        monkeypatch.setattr(background, "GRACE", 0.05)

    def through(self):
        self.release.set()
        assert self.ended.wait(60)
        for thread in threading.enumerate():
            if thread.daemon and thread is not threading.current_thread():
                thread.join(0.2)


@pytest.mark.parametrize("writes", [False, True])
def test_a_thread_that_is_still_writing_when_its_job_is_closed_harms_nobody(
    session, study, tmp_path, monkeypatch, writes
):
    model, before = session.model, weights_of(session.model)
    plain = chatted(session, study, Original())
    stuck = Stuck(monkeypatch, model, writes=writes)
    job = export_job(study, 1, tmp_path / "out", load=session.load)
    while not stuck.began.is_set():
        next(job)
    job.close()
    assert not stuck.ended.is_set()
    assert not leftovers(tmp_path)
    assert same_weights(model, before)
    assert chatted(session, study, Original()) == plain
    talk = chat(study.model_name, study.profile, study, turns(OfTrial(1)), Sampling(max_tokens=30), load=session.load)
    next(talk)
    next(talk)
    assert not same_weights(model, before)
    stuck.through()  # it now reads weights that another job holds ablated
    talk.close()
    assert same_weights(model, before)
    assert not leftovers(tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_same_export_can_be_begun_again_at_once(session, study, tmp_path, monkeypatch):
    stuck = Stuck(monkeypatch, session.model, writes=False)
    job = export_job(study, 1, tmp_path / "out", load=session.load)
    while not stuck.began.is_set():
        next(job)
    job.close()
    again = export_job(study, 1, tmp_path / "out", load=session.load)
    next(again)
    stuck.release.set()
    exported = result(again)
    stuck.through()
    assert exported.size == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert not leftovers(tmp_path)


def turns(candidate):
    return [Turn(candidate, (ChatMessage("user", "How long is a river?"),))]


def chatted(session, study, candidate):
    job = chat(study.model_name, study.profile, study, turns(candidate), Sampling(max_tokens=9), load=session.load)
    return result(job)[0].text


def test_exports_of_a_session_load_the_model_once(tiny_folder, study, tmp_path, monkeypatch):
    from heretic_tui.engine.loading import loader

    session, count = Session(), []
    load = loader.load
    monkeypatch.setattr(loader, "load", lambda *arguments: count.append(1) or load(*arguments))
    result(export_job(study, 1, tmp_path / "one", load=session.load))
    result(export_job(study, 2, tmp_path / "two", load=session.load))
    result(export_job(study, 2, tmp_path / "three", adapter=True, load=session.load))
    assert len(count) == 1


def test_two_exports_of_one_trial_are_the_same_bytes(session, study, tmp_path):
    for name in ("one", "two"):
        result(export_job(study, 1, tmp_path / name, load=session.load))
        chatted(session, study, OfTrial(2))
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()


def off_the_edit(session, study, folder, **settings):
    """What an adapter's export says of it, and how far each of its weights is off the live edit, by their names."""
    directions, record = load_directions(study.path / DIRECTIONS), study.record(1)
    profile = study.profile.model_copy(update=settings)
    written = result(export_adapter(session.model, directions, record, profile, folder))
    factors = load_file(folder / "adapter_model.safetensors")
    expected, found = held(session.model, directions, record, profile), {}
    for writer in session.model.writers:
        name = f"base_model.model.{writer.name}"
        if f"{name}.lora_A.weight" in factors:
            update = factors[f"{name}.lora_B.weight"].double() @ factors[f"{name}.lora_A.weight"].double()
            exact = expected[f"{writer.name}.weight"].double() - writer.matrix.double()
            found[writer.name] = float((update - exact).norm() / exact.norm())
    assert found
    return written, found


@pytest.mark.parametrize("normalization", ["none", "pre"])
def test_an_adapter_is_the_edit_of_the_live_weights(session, study, tmp_path, normalization):
    written, off = off_the_edit(session, study, tmp_path / "out", row_normalization=normalization)
    assert (written.rank, written.error) == (1, 0.0)
    assert max(off.values()) < 1e-5


@pytest.mark.parametrize("normalization", ["full", "columns"])
@pytest.mark.parametrize("rank", [1, 3])
def test_an_adapter_of_scaled_rows_or_columns_says_how_far_it_is_off(session, study, tmp_path, normalization, rank):
    asked = {"row_normalization": normalization, "full_normalization_lora_rank": rank}
    written, off = off_the_edit(session, study, tmp_path / "out", **asked)
    assert written.rank == rank
    assert 0 < written.error == pytest.approx(max(off.values()), rel=1e-3)


def test_an_adapter_takes_the_rank_that_an_error_asks_for(session, study, tmp_path):
    written, off = off_the_edit(session, study, tmp_path / "out", row_normalization="columns", adapter_error=0.01)
    assert written.rank > 3
    assert max(off.values()) <= 0.01 + 1e-5


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_the_card_names_the_edit(session, form):
    card = model_card(session.model, RECORD, Profile(row_normalization="columns"), form)
    assert '"row_normalization": "columns"' in card


def test_a_job_that_yields_nothing_else_ticks(monkeypatch, session, study, tmp_path):
    monkeypatch.setattr(background, "HEARTBEAT", 0.001)
    stuck = Stuck(monkeypatch, session.model, writes=True)
    job = export_job(study, 1, tmp_path / "out", load=session.load)
    while not stuck.began.is_set():
        next(job)
    waiting = [next(job) for _ in range(5)]
    assert all(isinstance(event, Progress | Tick) for event in waiting)
    assert waiting[-1] == Progress("export", waiting[-1].done, export_size(session.model.facts, None), "B")
    stuck.release.set()
    run(job)
