"""What the chat screen asks: the system prompt, and how tokens are drawn."""

from collections.abc import Callable
from typing import Any

from heretic_tui.engine.chat.conversation import Sampling
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
