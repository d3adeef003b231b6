"""The profile screen."""

from typing import ClassVar

from heretic_tui.screens.frame import FrameScreen


class ProfileScreen(FrameScreen):
    """To come."""

    MODE: ClassVar[str] = "profile"
