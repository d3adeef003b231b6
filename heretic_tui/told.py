"""What the log says of an event, in one place for the events of this process and for those of a run's log."""

from collections.abc import Mapping

from heretic_tui.engine import events
from heretic_tui.engine.events import Event
from heretic_tui.engine.records import Score
from heretic_tui.formats import duration, heading, size


def told(event: Event) -> tuple[str, str] | None:
    """The words for an event and how grave they are; None for one that the log passes over."""
    match event:
        case events.Note():
            return event.text, event.level
        case events.PhaseFinished():
            return f"{event.phase}: {event.result} ({duration(event.seconds)})", "info"
        case events.ModelLoaded():
            facts = event.facts
            return f"{facts.name} is loaded: {facts.dtype} on {facts.device}", "info"
        case events.RunOpened():
            return f"run {event.run}: {event.finished} of {event.trials} trials done", "info"
        case events.BaselineMeasured():
            return f"original model: {_scores(event.scores)}", "info"
        case events.TrialFinished():
            star = " *" if event.on_front else ""
            return f"trial {event.record.trial}: {_scores(event.record.scores)}{star}", "info"
        case events.StudyFinished():
            return f"{event.trials} trials in {duration(event.seconds)}, {len(event.front)} on the front", "info"
        case events.Exported():
            return f"trial {event.trial} is in {event.to} ({size(event.size)})", "info"
        case _:
            return None


def _scores(scores: Mapping[str, Score]) -> str:
    return ", ".join(f"{heading(name)} {score.text}" for name, score in scores.items())
