"""How a trial is written into a model: what its parameters leave open and its profile says. No torch here."""

from dataclasses import dataclass
from typing import Literal

from heretic_tui.profile.schema import Profile

RowNormalization = Literal["none", "pre", "full", "columns"]


@dataclass(frozen=True, slots=True)
class AblationStyle:
    """What keeps its length in an edited weight, and whether norms after a writer turn its direction."""

    row_normalization: RowNormalization = "none"
    gain_aware: bool = True


PLAIN = AblationStyle()
"""The plain edit, of every writer in every layer."""


def style_of(profile: Profile) -> AblationStyle:
    """How a profile's trials are written."""
    return AblationStyle(profile.row_normalization, profile.gain_aware)
