"""Trials, one after the other, until the study has as many as it is to have."""

import time
from collections.abc import Mapping
from contextlib import suppress

from heretic_tui.engine.ablation.directions import Directions
from heretic_tui.engine.ablation.style import style_of
from heretic_tui.engine.ablation.weight_edits import ablated
from heretic_tui.engine.background import Job
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.events import Note, Progress, TrialFinished, TrialStarted
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.records import Score
from heretic_tui.engine.runs.run import Run
from heretic_tui.engine.scoring.scoreboard import Scoreboard
from heretic_tui.engine.study.search import Search
from heretic_tui.engine.study.start import MOMENT, keep_batch_size


def optimize(
    model: LanguageModel,
    run: Run,
    scoreboard: Scoreboard,
    directions: Directions,
    base: Mapping[str, Score],
    search: Search,
) -> Job[None]:
    """Run trials until the wanted number is reached; each stands in the journal before its event is seen."""
    profile = run.profile
    if not search.done:
        search.set_finished(False)
    while not search.done:
        if search.asked_to_pause():
            raise EngineError("The run was paused from elsewhere.", f"Go on with: --resume {run.name}")
        suggestion = search.ask(list(model.facts.writers), model.facts.layers)
        if suggestion is None:
            yield from _news(search)
            if not search.done:
                yield Progress("waiting for other workers", len(search.records), search.wanted, "trials")
                time.sleep(MOMENT)
            continue
        told = False
        try:
            yield from _news(search)
            yield TrialStarted(suggestion.trial, search.wanted)
            started = time.perf_counter()
            beaten = search.beaten if profile.end_dominated_trials else None
            with ablated(model, directions, suggestion.parameters, style_of(profile)):
                edited = time.perf_counter() - started
                title, first = f"trial {suggestion.trial}", scoreboard.first(search.tally)
                measurement = yield from scoreboard.measure(model, title, beaten, first if beaten else None)
            if search.holds(suggestion):
                run.save_responses(suggestion.trial, measurement.responses)
            record = search.tell(
                suggestion,
                measurement.scores,
                base,
                time.perf_counter() - started,
                ended_early=measurement.ended_early,
                counted=measurement.counted,
                timing={"edit": edited, **measurement.timing},
            )
            told = True
        finally:
            if not told:
                with suppress(EngineError):  # on a full disk: what is left open is closed when the study is resumed
                    search.drop(suggestion)
        if record is None:
            yield Note(f"This worker was silent too long: trial {suggestion.trial} was given to another.", "warning")
            continue
        keep_batch_size(run, model)
        yield TrialFinished(record, search.on_front(record))
    search.set_finished(True)


def _news(search: Search) -> Job[None]:
    """What other workers have finished."""
    for record in search.news():
        yield TrialFinished(record, search.on_front(record))
