"""What a trial costs besides the model, from the first to the thousandth: sampler, journal, front, order of prompts.

    python tests/benchmarks/trial_overhead.py

A made-up engine scores at once. Between the places that are timed the parameters are random, so that only the timed
trials pay for the sampler. `sampler` is Optuna's, `journal` the file that it keeps and syncs; `ours` is all the rest.
"""

import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from heretic_tui.engine.records import Label, Response, Score
from heretic_tui.engine.runs.listing import create_run
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.study.search import Search, Suggestion, open_study
from heretic_tui.profile.schema import Profile
from heretic_tui.state import StudyView

PLACES = (1, 100, 500, 1000)
WINDOW = 8
PROMPTS = 100
LAYERS = 30
COMPONENTS = ("attn.o_proj", "mlp.down_proj")
BASE = {"refusals": Score(0.9, 90, PROMPTS), "kl_divergence": Score(0.0)}


def scored(suggestion: Suggestion) -> tuple[dict[str, Score], list[bool | None]]:
    """Scores with a trade-off, and which prompts are refused."""
    kernels = suggestion.parameters.kernels
    strength = kernels["attn.o_proj"].max_weight + kernels["mlp.down_proj"].max_weight
    refused = [(index * 37 + suggestion.trial) % 100 / 100 > strength / 3 for index in range(PROMPTS)]
    count = sum(refused)
    return {"refusals": Score(count / PROMPTS, count, PROMPTS), "kl_divergence": Score(strength**2 / 5)}, list(refused)


def one_trial(run: Run, search: Search, view: StudyView, spent: dict[str, list[float]]) -> None:
    """What a job and a screen do around one trial."""

    def timed(part: str, act: Callable[[], object]) -> object:
        began = time.perf_counter()
        done = act()
        spent[part].append(1000 * (time.perf_counter() - began))
        return done

    suggestion = timed("ask", lambda: search.ask(COMPONENTS, LAYERS))
    assert isinstance(suggestion, Suggestion)
    scores, refused = scored(suggestion)
    timed("bounds", lambda: [search.beaten(scores) for _ in range(30)])
    timed("order", lambda: search.tally.shares("refusals"))
    responses = [
        Response("set", f"prompt {index}", "word " * 60, "length", Label.REFUSAL if one else Label.ANSWER)
        for index, one in enumerate(refused)
    ]
    timed("responses", lambda: run.save_responses(suggestion.trial, responses))
    tell = lambda: search.tell(suggestion, scores, BASE, 1.0, counted={"refusals": refused})  # noqa: E731
    timed("tell", tell)
    timed("front", lambda: (search.front(), search.wanted))
    timed("log", lambda: run.log(json.dumps(search.records[-1].as_json())))
    timed("screen", lambda: view.add(search.records[-1]))


def main() -> None:
    """Print a table of milliseconds a trial, medians over a few trials at each place."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Profile(seed=1, n_trials=2000, n_startup_trials=0)
        run = create_run(Path(folder), "model", "overhead", asked)
        drawn = asked.model_copy(update={"n_startup_trials": 10**6})
        search = Search(open_study(asked, run.journal), asked)
        view = StudyView(run.path, "model", asked.objectives, 2000, BASE)
        rows = {}
        for place in PLACES:
            search.profile = drawn
            while len(search.records) < place - 1:
                one_trial(run, search, view, defaultdict(list))
            random: dict[str, list[float]] = defaultdict(list)
            sampled: dict[str, list[float]] = defaultdict(list)
            for profile, spent in ((drawn, random), (asked, sampled)):
                search.profile = profile
                for _ in range(WINDOW):
                    one_trial(run, search, view, spent)
            rows[place] = {name: statistics.median(times) for name, times in random.items()}
            rows[place]["sampler"] = max(0.0, statistics.median(sampled["ask"]) - rows[place]["ask"])
        names = list(next(iter(rows.values())))
        print("ms a trial  " + "".join(f"{name:>11}" for name in names))
        for place, row in rows.items():
            print(f"trial {place:>5} " + "".join(f"{row[name]:>11.2f}" for name in names), flush=True)
        began = time.perf_counter()
        Search(open_study(asked, run.journal), asked)
        size = run.journal.stat().st_size
        print(f"opening the study of {len(search.records)} trials again: {time.perf_counter() - began:.1f} s, "
              f"{size / 1e6:.1f} MB of journal")  # fmt: skip


if __name__ == "__main__":
    main()
