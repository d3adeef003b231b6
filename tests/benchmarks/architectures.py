"""The table of architectures: what writes, what leaks, what a study finds and what its exports hold, one row each.

    python tests/benchmarks/architectures.py > .github/ARCHITECTURES.md

Every model is a tiny random one of the tests; a few minutes in all, on one core.
"""

import contextlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from tiny_models import ARCHITECTURES, result, run, tiny_model, tiny_network, tiny_tokenizer

from heretic_tui.engine import pipeline
from heretic_tui.engine.ablation.directions import load_directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.events import Verified
from heretic_tui.engine.loading.coverage import probe
from heretic_tui.engine.loading.discovery import discover
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.runs.run import DIRECTIONS, Run
from heretic_tui.profile.schema import Profile

HEAD = """# Architectures

Written by `python tests/benchmarks/architectures.py`, not by hand: each row is a run on a tiny random model of that
architecture (3 layers of width 48, random norms and biases, float32), the same models that the tests run on.

- **writers**: what writes into the residual stream, as it is told when a model is loaded.
- **leak**: the largest share of a layer's update along a random direction, before and after every writer is ablated
  for it. Zero to rounding means that no writer was missed.
- **by probing**: the same with nothing known of the architecture: how many of the writers were found, and the leak.
- **study**: keyword rate and KL divergence of the best of 3 trials (random models: it runs, no more).
- **merged**: tensors changed of all in the files; the export, loaded afresh, is the trial in every bit.
- **adapter**: rank, stated error at `adapter_error = 0.02`, and the largest error found in a weight after plain PEFT
  has merged the adapter into the original model (edit `full`).

| architecture | class | writers | leak before | leak after | by probing | study | merged | adapter |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
GAINS = """
## Norms after the writers

Where a norm stands between a writer and the addition, its gain turns the direction. The leak that is left by the plain
formula, and by the one that takes the gain into account (`gain_aware`, the default):

| architecture | plain | gain-aware |
| --- | --- | --- |
"""


def profile(folder: Path) -> Profile:
    """The profile of a study of three short trials on prompts without meaning."""
    sets = {}
    for name, words in (("plain", "Tell me about {} rivers."), ("other", "Open the lock {}!")):
        (folder / f"{name}.txt").write_text("\n".join(words.format(n) for n in range(6)), encoding="utf-8")
        sets[name] = {"dataset": str(folder / f"{name}.txt")}
    scorers = {
        "KLDivergence": {"prompts": sets["plain"]},
        "KeywordRate": {"prompts": sets["other"], "keyword_markers": ["e"]},
    }
    settings = {"n_trials": 3, "n_startup_trials": 2, "seed": 1, "batch_size": 6, "max_response_length": 4}
    prompts = {"good_prompts": sets["plain"], "bad_prompts": sets["other"], "scorer": scorers}
    return Profile.model_validate({**settings, **prompts, "response_prefix": "", "adapter_error": 0.02})


def probed(architecture: str) -> str:
    """What discovery finds where the table knows nothing."""
    model = tiny_model(architecture)
    known = {writer.weight_name for writer in model.writers}
    model.writers = []
    writers, coverage = result(discover(model, probe(model)))
    found = {writer.weight_name for writer in writers}
    others = len(found - known)
    return f"{len(found & known)}/{len(known)}{f' and {others} more' if others else ''}, {figure(max(coverage.leak))}"


def figure(share: float) -> str:
    """A leak: in full where it is one, its size where it is rounding."""
    return f"{share:.3f}" if share > 5e-4 else f"{share:.0e}".replace("e-0", "e-")


def study(architecture: str, folder: Path) -> tuple[str, ...]:
    """Cells of a row that a study and its exports give."""
    source = folder / "source"
    tiny_network(architecture).save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    *_, finished = pipeline.start_study(str(source), profile(folder), "table", folder / "runs")
    done = Run(finished.path)
    facts = done.model()[0]
    best = min(done.records(), key=lambda record: [score.value for score in record.scores.values()][::-1])
    scores = ", ".join(score.text for score in best.scores.values())
    events, _ = run(pipeline.export(done, best.trial, folder / "merged"))
    (verified,) = (event for event in events if isinstance(event, Verified))
    adapter = result(pipeline.export(done, best.trial, folder / "adapter", adapter=True))
    original = result(load(str(source), Profile()))
    before = state(original)
    directions = load_directions(done.path / DIRECTIONS)
    with ablated(original, directions, best.parameters, style_of(done.profile)):
        wanted = state(original)
    again = state(result(load(str(folder / "merged"), Profile())))
    same = all(torch.equal(again[name], tensor) for name, tensor in wanted.items())
    peft = PeftModel.from_pretrained(original.network, folder / "adapter").merge_and_unload()
    error = max(off(peft.state_dict(), wanted, before, writer.weight_name) for writer in original.writers)
    return (
        facts.architecture,
        words(facts.writer_kinds),
        figure(facts.write),
        figure(facts.leak),
        probed(architecture),
        scores,
        f"{verified.changed} of {verified.tensors}, {'identical' if same else 'DIFFERENT'}",
        f"rank {adapter.rank}, {adapter.error:.4f} / {error:.4f}",
    )


def words(kinds: Mapping[str, int]) -> str:
    """How many writers there are of each kind; of experts all, over all layers."""
    return ", ".join(f"{count} {'experts' if 'experts' in kind else kind}" for kind, count in kinds.items())


def state(model: LanguageModel) -> dict[str, torch.Tensor]:
    """A copy of all weights by name."""
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def off(found: dict, wanted: dict, before: dict, name: str) -> float:
    """The largest error of a weight's update, relative to the exact one, over its experts."""
    exact = (wanted[name] - before[name]).double()
    if not exact.any():
        return 0.0
    update = (found[name] - before[name]).double()
    if exact.ndim == 2:
        exact, update = exact[None], update[None]
    return max(float((one - other).norm() / other.norm()) for one, other in zip(update, exact, strict=True))


def main() -> None:
    """Print the page."""
    torch.set_num_threads(1)
    page, gains = [HEAD], [GAINS]
    for architecture in ARCHITECTURES:
        print(architecture, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            page.append(row(architecture, *study(architecture, Path(folder))))
        model = tiny_model(architecture)
        if any(writer.gain is not None for writer in model.writers):
            plain, aware = (probe(model, gain_aware=wanted) for wanted in (False, True))
            gains.append(row(architecture, *(figure(max(found.leak)) for found in (plain, aware))))
    print("".join(page) + "".join(gains), end="")


def row(*cells: str) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    main()
