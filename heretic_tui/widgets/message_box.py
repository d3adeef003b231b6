"""Where a message is written: grows with its text, enter sends it."""

import unicodedata
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea


class MessageBox(TextArea):
    """A box of one to a few lines; enter sends, a line break is ctrl+j (or shift+enter, where the terminal tells)."""

    HELP: ClassVar[str] = """
    Write a message and press enter: the candidate of every open column answers it. A line break is ctrl+j. The up
    arrow in an empty box takes the last message back to edit it. Escape stops an answer, then leaves the box; what
    was typed stays.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="chat.send"),
        Binding("escape", "screen.back", "Leave", id="chat.leave"),
        Binding("ctrl+j,shift+enter", "line_break", "Line break", show=False, id="chat.line-break"),
        # Without it the key would select the line, as Textual has it.
        Binding("f6", "app.go('export')", show=False, id="app.export", tooltip="Go to Export"),
    ]

    class Sent(Message):
        """A message is to be sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class EditWanted(Message):
        """The last message is to be edited."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id, highlight_cursor_line=False)

    async def _on_key(self, event: events.Key) -> None:
        # Not a priority binding: that one would overtake letters typed just before it.
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.action_send()

    def action_send(self) -> None:
        """Send what was written; it stays in the box until somebody takes it."""
        if self.text.strip():
            self.post_message(self.Sent(self.text))

    def take(self, text: str, instead: str = "") -> None:
        """Take out what was sent, and leave what was typed after it."""
        self.write(instead + self.text.removeprefix(text))

    def action_line_break(self) -> None:
        """Begin another line."""
        self.insert("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up; in an empty box, take the last message back."""
        if self.text:
            super().action_cursor_up(select)
        else:
            self.post_message(self.EditWanted())

    def on_paste(self, event: events.Paste) -> None:
        """Leave out what could come back to the terminal as an escape sequence; the box then takes the rest."""
        event.stop()
        whole = event.text.replace("\r\n", "\n").replace("\r", "\n")
        event.text = "".join(one for one in whole if one in "\n\t" or unicodedata.category(one) != "Cc")

    def write(self, text: str) -> None:
        """Put a text into the box, with the cursor at its end."""
        self.text = text
        self.move_cursor(self.document.end)
