"""What the chat screen asks: how tokens are drawn, and where and how strongly a direction is taken out or added."""

import math
from collections.abc import Callable
from typing import Any

from heretic_tui.candidates import Steered
from heretic_tui.engine.chat import Added, Candidate, Removed, Sampling
from heretic_tui.engine.errors import EngineError
from heretic_tui.screens.form import Field, Form, Values
from heretic_tui.talk import Talk

_READERS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "max_tokens": int,
    "seed": lambda text: int(text) if text else None,
}


def settings_form(talk: Talk) -> Form:
    """The form of a talk's settings."""
    drawn = talk.sampling
    fields = [
        Field("system", "System prompt", talk.system, "goes before the first message; may be empty", long=True),
        Field("temperature", "Temperature", f"{drawn.temperature:g}", "0 is greedy: always the likeliest token"),
        Field("top_p", "Top-p", f"{drawn.top_p:g}", "1 is off"),
        Field("top_k", "Top-k", str(drawn.top_k), "0 is off"),
        Field("max_tokens", "Longest answer", str(drawn.max_tokens), "tokens"),
        Field("seed", "Seed", "" if drawn.seed is None else str(drawn.seed), "empty: another answer each time"),
    ]
    return Form("Settings of this chat", fields, settings_problems)


def settings_problems(values: Values) -> dict[str, str]:
    """What is wrong with each of the sampling settings."""
    problems = {}
    for key, read in _READERS.items():
        try:
            Sampling(**{key: read(values[key].strip())})
        except ValueError:
            problems[key] = "A whole number." if read is not float else "A number."
        except EngineError as error:
            problems[key] = error.remedy or error.cause
    return problems


def sampling(values: Values) -> Sampling:
    """The settings that `settings_problems` found nothing wrong with."""
    return Sampling(**{key: read(values[key].strip()) for key, read in _READERS.items()})


def steering_form(kind: Steered, layers: int, layer: int) -> Form:
    """The form for layer and strength of a direction."""
    span = f"0 to {layers - 1}" if layers else "counted from 0"
    removed = kind == "removed"
    fields = [
        Field("layer", "Layer", str(layer), f"{span}: whose direction"),
        Field("strength", "Strength", "1", "1 takes it out wholly" if removed else "1 adds the sets' difference once"),
    ]
    title = "Take out one layer's direction everywhere" if removed else "Add one layer's direction to the stream"
    return Form(title, fields, lambda values: steering_problems(values, layers))


def steering_problems(values: Values, layers: int) -> dict[str, str]:
    """What is wrong with layer and strength; `layers` 0 is not known."""
    problems = {}
    layer, strength = values["layer"].strip(), values["strength"].strip()
    if not layer.isdecimal():
        problems["layer"] = "A whole number from 0."
    elif layers and int(layer) >= layers:
        problems["layer"] = f"The layers are 0 to {layers - 1}."
    try:
        if not math.isfinite(float(strength)):
            problems["strength"] = "A finite number."
    except ValueError:
        problems["strength"] = "A number, such as 1 or 0.5."
    return problems


def steered(kind: Steered, values: Values) -> Candidate:
    """The candidate that the form describes."""
    layer, strength = int(values["layer"]), float(values["strength"])
    return Removed(layer, strength) if kind == "removed" else Added(layer, strength)
