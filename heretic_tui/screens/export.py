"""The export screen."""

from typing import ClassVar

from heretic_tui.screens.frame import FrameScreen


class ExportScreen(FrameScreen):
    """To come."""

    MODE: ClassVar[str] = "export"
