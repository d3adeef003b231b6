"""What steering is made of: a direction, what is done to the stream with it, how much, and where. No torch here.

A `Steered` has a label, and `read_steered` reads the label back: what is shown can be typed.
"""

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from heretic_tui.engine.errors import EngineError
from heretic_tui.layer_ranges import EXAMPLES as EXAMPLE_LAYERS
from heretic_tui.layer_ranges import NoLayers, layers_of, shown_layers

if TYPE_CHECKING:
    from heretic_tui.engine.inspection.direction import Direction

Operation = Literal["removed", "added", "rotated"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
EVERYWHERE = "everywhere"
MIX = "mix"
"""The inspector's key for what its mixer makes."""


@dataclass(frozen=True, slots=True)
class OfLayer:
    """What a run has measured at a decoder layer (counted from 0): its direction, or the good prompts' centre."""

    layer: int
    good: bool = False

    @property
    def label(self) -> str:
        """The direction's name for people."""
        return f"good centre {self.layer}" if self.good else f"layer {self.layer}"


@dataclass(frozen=True, slots=True)
class OfComponent:
    """Principal component `number` (counted from 1) of a run's residual vectors after a decoder layer."""

    layer: int
    number: int

    @property
    def label(self) -> str:
        """The direction's name for people."""
        return f"component {self.number} of layer {self.layer}"


@dataclass(frozen=True, slots=True)
class Saved:
    """A direction of the library, by its name."""

    name: str

    @property
    def label(self) -> str:
        """The direction's name for people."""
        return self.name


@dataclass(frozen=True, slots=True)
class Given:
    """A direction that is kept nowhere, such as a mix: a name and its numbers `(d_model,)`."""

    name: str
    values: tuple[float, ...] = field(repr=False)

    @property
    def label(self) -> str:
        """The direction's name for people."""
        return self.name


Source: TypeAlias = OfLayer | OfComponent | Saved | Given
"""Where a direction comes from."""


@dataclass(frozen=True, slots=True)
class Steered:
    """The original weights, with the residual stream changed at every position while the model runs.

    `layers` are the decoder layers after which it is changed; None is everywhere, the stream into the first layer
    too. What `amount` counts depends on the operation:

    `removed`: the share of the stream's component along the direction that is taken out; 1 is all of it.
    `added`: for a direction of the run the distance of the two sets' centres at the direction's layer, for any other
    direction the length of the stream itself at each position.
    `rotated`: degrees, from the direction towards `towards` in the plane of both; what is outside of the plane stays.

    Raises `EngineError` for what has no meaning.
    """

    operation: Operation
    direction: Source
    amount: float = 1.0
    layers: tuple[int, ...] | None = None
    towards: Source | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.amount):
            raise EngineError(f"The strength cannot be {self.amount}.", "Give a finite number.")
        if self.layers is not None and not self.layers:
            raise EngineError("No layer is named to change the stream at.", "Name one at least, or take all of them.")
        if (self.towards is None) == (self.operation == "rotated"):
            raise EngineError(
                "A rotation needs two directions, and nothing else does.", "Say what to rotate towards, or leave it."
            )

    @property
    def label(self) -> str:
        """The candidate's name for people: direction, operation, amount, layers."""
        where = EVERYWHERE if self.layers is None else f"at {shown_layers(self.layers)}"
        if self.towards is not None:
            return f"{self.direction.label} rotated {_shown(self.amount)}° to {self.towards.label} {where}"
        return f"{self.direction.label} {self.operation} x{_shown(self.amount)} {where}"


def unit_of(operation: Operation, direction: Source) -> str:
    """What an amount of 1 means, in a few words."""
    if operation == "removed":
        return "1 = the whole component"
    if operation == "rotated":
        return "degrees; 180 reverses the plane"
    of_run = isinstance(direction, OfLayer)
    return "1 = the two centres' distance" if of_run else "1 = the stream's own length"


def usual_amount(operation: Operation, direction: Source) -> float:
    """An amount to begin with."""
    if operation == "rotated":
        return 30.0
    return 1.0 if operation == "removed" or isinstance(direction, OfLayer) else 0.2


def usual_layers(operation: Operation, direction: Source, layers: int) -> tuple[int, ...] | None:
    """Where to begin: an addition at one layer, the direction's own or one past the middle; all else everywhere."""
    if operation != "added":
        return None
    return (direction.layer,) if isinstance(direction, OfLayer) else (layers * 6 // 10,)


# Layers as text


def read_layers(text: str, count: int = 0) -> tuple[int, ...] | None:
    """Layers from `all`, `14`, `8-20` or `3, 8-20`; None is all. `count` layers there are, 0 is not known.

    Raises `EngineError` for text that names none, and for layers that there are not.
    """
    if text.strip().casefold() in {"all", EVERYWHERE}:
        return None
    try:
        layers = layers_of(text)
    except NoLayers as error:
        raise EngineError(f"“{error}” names no layers.", f"Write all, {EXAMPLE_LAYERS}.") from error
    check_layers(layers, count)
    return layers


def check_layers(layers: tuple[int, ...], count: int) -> None:
    """Raise `EngineError` for a layer that a model of `count` layers does not have; 0 is not known."""
    missing = next((layer for layer in sorted(layers) if layer < 0 or (count and layer >= count)), None)
    if missing is not None:
        raise EngineError(f"There is no layer {missing}.", f"The layers are numbered 0 to {count - 1}.")


# Labels read back

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_LABEL = re.compile(
    rf"(?P<direction>.+?)\s+(?P<operation>removed|added|rotated)(?:\s+[x×]?\s*(?P<amount>{_NUMBER})\s*°?)?"
    r"(?:\s+to\s+(?P<towards>.+?))?(?:\s+(?:(?P<all>everywhere|at\s+all)|at\s+(?P<layers>[\d,\s–-]+)))?",
    re.IGNORECASE,
)
GRAMMAR = "DIRECTION removed|added [xAMOUNT] [at LAYERS], or DIRECTION rotated DEGREES to DIRECTION [at LAYERS]"
EXAMPLES = '"layer 14 removed", "layer 14 added x2 at 8-20", "layer 14 rotated 30 to good centre 14"'


def read_source(text: str) -> Source:
    """A direction by its label or the inspector's key for it; any other text is the name of a saved one.

    `layer 14` or `layer:14`, `good centre 14`, `component 3 of layer 14` or `pc:14:3`.
    """
    bare = " ".join(text.split())
    if match := re.fullmatch(r"(layer|good centre)[ :]\s*(\d{1,4})", bare, re.IGNORECASE):
        return OfLayer(int(match[2]), good=match[1].casefold() != "layer")
    if match := re.fullmatch(r"pc:(?P<layer>\d{1,4}):(?P<number>\d{1,4})", bare, re.IGNORECASE) or re.fullmatch(
        r"component (?P<number>\d{1,4}) of layer (?P<layer>\d{1,4})", bare, re.IGNORECASE
    ):
        return OfComponent(int(match["layer"]), int(match["number"]))
    return Saved(text.strip())


def source_of(key: str, found: "Direction") -> Source:
    """What the inspector shows under a key, to steer with; a direction that is kept nowhere brings its numbers."""
    source = read_source(key)
    if not isinstance(source, Saved) or (source.name == found.name != MIX):
        return source
    return Given(found.made if key == MIX and found.made else found.name, tuple(found.vector.tolist()))


def read_steered(text: str, layers: int = 0) -> Steered:
    """A candidate from its label; what is left out is as usual. `layers` the model has, 0 is not known.

    Raises `EngineError` for what cannot be read.
    """
    match = _LABEL.fullmatch(text.strip())
    if match is None:
        raise EngineError(f"“{text}” says no steering.", f"Write {GRAMMAR}; for instance {EXAMPLES}.")
    operation = cast("Operation", match["operation"].casefold())
    direction = read_source(match["direction"])
    amount = float(match["amount"]) if match["amount"] else usual_amount(operation, direction)
    if match["layers"]:
        at = read_layers(match["layers"], layers)
    elif match["all"]:
        at = None
    else:
        at = usual_layers(operation, direction, layers)
    return Steered(operation, direction, amount, at, read_source(match["towards"]) if match["towards"] else None)


def _shown(number: float) -> str:
    return f"{float(number):.6g}"
