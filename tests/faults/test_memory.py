"""Memory that runs out, in every phase: the batch is halved and the study goes on, or it says why it cannot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from heretic_tui.engine import pipeline
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Event, Note, Progress
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.runs.run import Run
from heretic_tui.profile import store

TRIALS = 3


class Tight:
    """A device whose memory runs out at a batch of more than `room` rows, from the moment it is told to."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.times = 0

    def load(self, name: str, profile: object):
        model = yield from load(name, profile)
        for module in (model.network, model.network.base_model):
            module.register_forward_pre_hook(self._check, with_kwargs=True)
        return model

    def _check(self, _: object, args: tuple, options: dict) -> None:
        if self.room is not None and len(options["input_ids"]) > self.room:
            self.times += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def moment(event: Event) -> str:
    """What tells one event of a study from the others."""
    kind = type(event).__name__
    return " ".join(str(getattr(event, name)) for name in ("phase", "trial") if hasattr(event, name)) or kind


def study(job, tight: Tight, at: str, room: int) -> list[Event]:
    """Run a study with memory that gets tight at a moment; gives its events."""
    events = []
    for event in job:
        events.append(event)
        if moment(event) == at:
            tight.room = room
    return events


@pytest.fixture(scope="module")
def measured(prompts, tmp_path_factory):
    """A profile of every phase: two passes, residual vectors that are kept, trials that are measured to their end."""
    plain, other = (f"dataset = {json.dumps(str(prompts[name]))}" for name in ("plain", "other"))
    path = tmp_path_factory.mktemp("profiles") / "measured.toml"
    path.write_text(
        f"n_trials = {TRIALS}\nn_startup_trials = 2\nseed = 1\nbatch_size = 6\nresponse_prefix = ''\n"
        "system_prompt = ''\nmax_response_length = 6\nsave_residuals = true\npasses = 2\n"
        "reuse_measurements = false\nend_dominated_trials = false\n"
        f"[good_prompts]\n{plain}\n[bad_prompts]\n{other}\n"
        f"[scorer.KLDivergence.prompts]\n{plain}\n[scorer.KeywordRate.prompts]\n{other}\n"
    )
    return store.resolve(str(path)).profile


def scores(run: Run) -> list[dict[str, float]]:
    return [{name: score.value for name, score in record.scores.items()} for record in run.records()]


@pytest.fixture(scope="module")
def unharmed(measured, model_dir, tmp_path_factory) -> list[dict[str, float]]:
    """The scores of the same study where there is memory enough."""
    *_, finished = pipeline.start_study(str(model_dir), measured, "unharmed", tmp_path_factory.mktemp("unharmed"))
    return scores(Run(finished.path))


PHASES = {
    "residual vectors": "RunOpened",
    "the second pass": "residuals",
    "the original's divergence": "directions",
    "the original's responses": "original model: KL divergence",
    "a trial's divergence": "2",
    "a trial's responses": "trial 2: KL divergence",
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_study_whose_memory_runs_out_halves_the_batch_and_ends_as_it_would_have(
    phase, measured, unharmed, model_dir, runs_dir
):
    tight = Tight()
    job = pipeline.start_study(str(model_dir), measured, "tight", runs_dir, load=tight.load)
    events = study(job, tight, PHASES[phase], room=3)
    assert tight.times == 1
    notes = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    assert notes == ["Out of memory with 6 prompts at a time; going on with 3."]
    run = Run(events[-1].path)
    assert notes[0] in (run.path / "log.txt").read_text()
    for found, expected in zip(scores(run), unharmed, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_a_study_without_a_batch_size_finds_one_that_fits(profile, model_dir, runs_dir):
    found = store.resolve(str(profile(n_trials=1, n_startup_trials=1, batch_size=0))).profile
    tight = Tight()
    events = study(
        pipeline.start_study(str(model_dir), found, "tight", runs_dir, load=tight.load), tight, "RunOpened", room=2
    )
    assert tight.times >= 1
    assert Run(events[-1].path).model()[1].batch_size <= 2


def test_a_smaller_batch_stays_when_the_study_is_gone_on_with(measured, model_dir, runs_dir):
    tight = Tight()
    job = pipeline.start_study(str(model_dir), measured, "tight", runs_dir, load=tight.load)
    for event in job:
        if moment(event) == "2":
            tight.room = 3
        if type(event).__name__ == "TrialFinished" and tight.times:
            break
    job.close()
    (run,) = (Run(path) for path in runs_dir.iterdir())
    assert run.model()[1].batch_size == 3
    again = list(pipeline.resume_study(run, load=tight.load))
    assert tight.times == 1
    assert not [event for event in again if isinstance(event, Note)]
    assert again[-1].trials == TRIALS


@pytest.mark.parametrize("phase", PHASES)
def test_where_not_even_one_row_fits_the_study_says_so_and_keeps_all_that_was_done(
    phase, measured, unharmed, model_dir, runs_dir
):
    tight = Tight()
    job = pipeline.start_study(str(model_dir), measured, "tight", runs_dir, load=tight.load)
    with pytest.raises(EngineError, match="Memory ran out") as failure:
        study(job, tight, PHASES[phase], room=0)
    assert "kept" in failure.value.cause
    assert failure.value.remedy
    run = next(Run(path) for path in runs_dir.iterdir() if "tight" in path.name)
    done = scores(run)
    assert len(done) == (1 if "trial's" in phase else 0)
    tight.room = None
    *_, finished = pipeline.resume_study(run, load=tight.load)
    assert finished.trials == TRIALS
    assert scores(run)[: len(done)] == done
    for found, expected in zip(scores(run), unharmed, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_memory_that_runs_out_where_there_is_no_batch_is_told_in_plain_words(heretic, study_of_two, error):
    """In the edit of a weight, which takes a copy of it: the finished trials stay, and the study goes on later."""
    from heretic_tui.engine.ablation import weight_edits

    apply, left = weight_edits.apply, 3

    def tight(*arguments: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise error
        apply(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_edits, "apply", tight)
        heretic("run", "--resume", study_of_two, "--trials", 3).is_plain("Memory ran out", "kept", "Free some memory")
    assert len(heretic("trials", study_of_two, "--json").objects) == 2
    assert heretic("run", "--resume", study_of_two, "--trials", 3, "--json").of("study_finished")[0]["trials"] == 3


@pytest.fixture
def study_of_two(study) -> Path:
    """A finished study of two trials."""
    return study


def test_an_export_whose_memory_runs_out_says_so_and_leaves_what_was_there(
    heretic, study_of_two, tmp_path, contents, partial_files
):
    from heretic_tui.engine.export import merging

    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")

    def tight(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "edited_parameters", tight)
        outcome = heretic("export", study_of_two, "--trial", 1, "--to", target, "--overwrite")
    outcome.is_plain("Memory ran out", "kept")
    assert contents(target) == {"old.txt": b"old"}
    assert not partial_files(tmp_path)


def test_progress_counts_no_prompt_twice_after_memory_ran_out(measured, model_dir, runs_dir):
    tight = Tight()
    job = pipeline.start_study(str(model_dir), measured, "tight", runs_dir, load=tight.load)
    events = study(job, tight, "RunOpened", room=2)
    for event in events:
        assert not isinstance(event, Progress) or event.total is None or event.done <= event.total


# For real


@pytest.fixture(scope="module")
def wide_dir(model_dir, tmp_path_factory) -> Path:
    """A model of the same tokenizer whose MLP is so wide that each token takes 64 kB there."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=16_384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("models") / "wide"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LIMITED = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from heretic_tui.cli import run_command_line
from heretic_tui.commands import console

shown = console.json_lines

def listener():
    show = shown()
    def limit(event):
        show(event)
        if type(event).__name__ == "RunOpened":
            used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
            resource.setrlimit(resource.RLIMIT_AS, (used + room * 1_000_000, resource.RLIM_INFINITY))
    return limit

console.json_lines = listener
for room, arguments in json.loads(sys.argv[1]):
    sys.argv = ["heretic-tui", *arguments, "--json"]
    code = run_command_line()
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(json.dumps({"code": code}), flush=True)
"""


def limited(folder: Path, *commands: tuple[int, tuple[object, ...]]) -> tuple[list[dict], str]:
    """Run commands one after the other in a process; each may take so many MB more from the opening of its run on."""
    order = json.dumps([[room, [str(one) for one in arguments]] for room, arguments in commands])
    # What is freed goes back at once and nothing is held ready, or the process would live on leftovers of its start.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", LIMITED, order]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=100)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def many(profile, tmp_path) -> Path:
    """A profile whose batches are large."""
    prompts = tmp_path / "many.txt"
    prompts.write_text("\n".join(f"Tell me about river {number}: {'its lock, ' * 12}." for number in range(8)))
    text = profile(n_trials=1, batch_size=8, max_response_length=2).read_text()
    for line in text.splitlines():
        if line.startswith("dataset"):
            text = text.replace(line, f"dataset = {json.dumps(str(prompts))}")
    path = tmp_path / "many.toml"
    other = '[bad_prompts]\nprefix = "Open it: "\n'
    path.write_text(text.replace("[bad_prompts]\n", other))
    return path


def test_a_process_that_may_take_little_memory_halves_its_batches_and_with_less_than_a_row_says_so(
    heretic, wide_dir, many, runs_dir, tmp_path
):
    run = runs_dir / "wide--many--1"
    begin = "run", wide_dir, "--profile", many, "--runs-dir", runs_dir
    events, said = limited(tmp_path, (40, begin), (4, ("run", "--resume", run, "--trials", 2)))
    assert [event["code"] for event in events if "code" in event] == [0, 1], said
    notes = [event["text"] for event in events if event.get("level") == "warning"]
    assert notes[0] == "Out of memory with 8 prompts at a time; going on with 4."
    assert [event["trials"] for event in events if event.get("event") == "study_finished"] == [1]
    assert "Memory ran out" in said
    assert "This is a bug" not in said
    assert len(heretic("trials", run, "--json").objects) == 1
    assert heretic("run", "--resume", run, "--json").of("study_finished")[0]["trials"] == 2
