"""From the inspector to the chat: the direction that is looked at, removed, added or rotated while the model runs."""

from functools import partial
from typing import TYPE_CHECKING

from heretic_tui.candidates import directions
from heretic_tui.engine.chat.steering import OfLayer, Steered
from heretic_tui.screens.chat.steering_dialog import SteeringDialog

if TYPE_CHECKING:
    from heretic_tui.screens.inspector.screen import InspectorScreen


def steer(screen: "InspectorScreen") -> None:
    """Ask how the direction that is looked at is to steer, and let it answer in the chat beside the original."""
    inspection, part = screen.inspection, screen.part
    if inspection is None:
        return
    shown = part.source if part is not None and not screen.whole else None
    # The stream into the first layer has no direction of its own: every prompt ends with the same token.
    direction = shown or OfLayer(max(0, inspection.row - 1))

    def answered(candidate: Steered | None) -> None:
        if candidate is not None:
            screen.control.steer(candidate)
            screen.app.switch_mode("chat")

    dialog = SteeringDialog("removed", direction, inspection.layers, partial(directions, inspection.path))
    screen.app.push_screen(dialog, answered)
