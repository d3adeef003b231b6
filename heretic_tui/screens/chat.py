"""The chat screen."""

from typing import ClassVar

from heretic_tui.screens.frame import FrameScreen


class ChatScreen(FrameScreen):
    """To come."""

    MODE: ClassVar[str] = "chat"
