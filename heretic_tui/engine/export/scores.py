"""The scores of an exported model, loaded afresh, beside those of its trial."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heretic_tui.atomic import write_whole
from heretic_tui.engine.background import Job
from heretic_tui.engine.checkpoints.permissions import say_yes
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Evaluated
from heretic_tui.engine.export.merged import REPORT
from heretic_tui.engine.files import os_errors
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.records import Score, TrialRecord
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.scoring.scoreboard import Scoreboard, load_scoreboard
from heretic_tui.profile.schema import Profile


def measure_export(run: Run, record: TrialRecord, folder: Path) -> Job[Evaluated]:
    """Load an exported model afresh, measure it as the trial was measured, and write both into the export's report.

    A trial of a model in 4 bits is measured against that; its export is in full, and so measured against the original
    model in full, which is loaded for it first. Raises `EngineError` where the run has no scores of the original.
    """
    base, known = run.base_scores(), run.model()
    if base is None or known is None or known[1] is None:
        raise EngineError(f"{run.name} has no scores of the original model yet.", "Resume it first.")
    facts, settled = known[0], known[1]
    profile = run.profile.model_copy(update={"quantization": "none"})

    def loaded(name: str, profile: Profile) -> Job[tuple[LanguageModel, Scoreboard]]:
        model = yield from load(name, profile)
        model.batch_size, model.response_prefix = settled.batch_size, settled.response_prefix
        return model, (yield from load_scoreboard(model, profile))

    if facts.quantization:
        original, scoreboard = yield from loaded(run.model_name, profile)
        measurement = yield from scoreboard.measure(original, "original model in full")
        base, state = dict(measurement.scores), scoreboard.state()
        del original
    else:
        state = run.baseline_tensors()
    if profile.trust_remote_code:  # the very code that the original was just loaded with
        say_yes("code", str(folder))
    model, scoreboard = yield from loaded(str(folder), profile.model_copy(update={"model_commit": None}))
    scoreboard.restore(state)
    scores = (yield from scoreboard.measure(model, "exported model")).scores
    evaluated = Evaluated(
        str(folder), run.model_name, scores, base, record.scores, facts.precision, model.facts.precision
    )
    _report(folder, evaluated)
    yield evaluated
    return evaluated


def _report(folder: Path, found: Evaluated) -> None:
    """Add the scores to the report that lies beside the weights."""

    def told(weights: str, scores: Mapping[str, Score]) -> dict[str, Any]:
        return {"weights": weights, "scores": {name: score.as_json() for name, score in scores.items()}}

    with os_errors():
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        content["measured"] = {
            "original": told(found.weights, found.base_scores),
            "trial": told(found.trial_weights, found.trial_scores),
            "export": told(found.weights, found.scores),
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_whole(folder / REPORT, lambda path: path.write_text(text, encoding="utf-8"), private=False)
