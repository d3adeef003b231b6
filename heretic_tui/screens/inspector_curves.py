"""Curves over the layers."""

from typing import ClassVar

from heretic_tui.screens.inspector_part import InspectorPart


class CurvesPart(InspectorPart):
    """What is measured of every layer, as curves."""

    NAME: ClassVar[str] = "curves"
