"""What the inspector's jobs are given in tests: a subject without a run, and a loader that loads nothing."""

from heretic_tui.engine.inspection.reading import Subject
from heretic_tui.profile.schema import Profile


def holding(model):
    """A loader that gives this model."""

    def load(name, profile):
        yield from ()
        return model

    return load


def subject():
    return Subject("tiny", Profile(system_prompt="", batch_size=4, response_prefix=""))
