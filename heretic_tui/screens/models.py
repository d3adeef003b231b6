"""The models screen."""

from typing import ClassVar

from heretic_tui.screens.frame import FrameScreen


class ModelsScreen(FrameScreen):
    """To come."""

    MODE: ClassVar[str] = "models"
