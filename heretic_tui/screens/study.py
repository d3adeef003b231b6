"""The study screen."""

from typing import ClassVar

from heretic_tui.screens.frame import FrameScreen


class StudyScreen(FrameScreen):
    """To come."""

    MODE: ClassVar[str] = "study"
