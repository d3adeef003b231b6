"""How numbers and foreign text are written, for people and as JSON: once for the whole program."""

import json
import math
import unicodedata
from datetime import datetime
from typing import Any

from heretic_tui.masking import masked


def size(count: float) -> str:
    """Bytes in decimal units: 5.3 MB."""
    if count < 1000:
        return f"{count:.0f} B"
    exponent = min(4, int(math.log10(count) // 3))
    return f"{count / 1000**exponent:.3g} {'kMGT'[exponent - 1]}B"


def duration(seconds: float) -> str:
    """Time spent or left: 8.1 s, 3 min 20 s, 2 h 5 min."""
    if math.isnan(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def brief(seconds: float) -> str:
    """A time without its smallest unit: 7 s, 12 min, 3 h 5 min, 4 d 2 h."""
    minutes = int(max(0.0, seconds)) // 60
    if minutes < 1:
        return f"{max(0.0, seconds):.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def ago(seconds: float) -> str:
    """How long ago something was, in words."""
    return "just now" if seconds < 3 else f"{brief(seconds)} ago"


def clock(moment: float, now: float) -> str:
    """When something was: the time today, else the day with it, else the date with it."""
    then, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    if then.date() == today.date():
        return f"{then:%H:%M}"
    return f"{then.day} {then:%b %H:%M}" if then.year == today.year else f"{then:%Y-%m-%d %H:%M}"


def heading(name: str) -> str:
    """A score's name for people: `kl_divergence` is KL, underscores are spaces."""
    return {"kl_divergence": "KL"}.get(name, name.replace("_", " "))


def plain(text: str) -> str:
    """Foreign text as harmless data: every control character but the line break becomes visible.

    Model output, prompts and file names may hold escape sequences; none of them may reach the terminal.
    """
    return "".join(letter if letter in "\n\t" or not _control(letter) else f"\\x{ord(letter):02x}" for letter in text)


def one_line(text: str) -> str:
    """Foreign text as harmless data on one line: line breaks and tabs become visible too."""
    return plain(text).replace("\n", "⏎").replace("\t", "  ")


def _control(letter: str) -> bool:
    return unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Cn"}


def json_line(value: Any) -> str:
    """One JSON value and a line break, strictly valid, without a secret in it."""
    return masked(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no word for a figure that is not a number: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
