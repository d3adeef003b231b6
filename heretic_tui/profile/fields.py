"""How a setting is written down: one call carries its default, help, group, unit and bounds."""

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Group = Literal[
    "model", "prompts", "directions", "ablation", "scoring", "search", "output", "headless", "benchmarks", "inspection"
]

NO_MEANING = "has no meaning here"
NOT_USED = "is not used by this command"


class Table(BaseModel):
    """A TOML table: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        validate_default=False,
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,  # a value may be what is to stay secret
    )


def setting(default: Any, help_text: str, group: Group | None = None, **more: Any) -> Any:
    """A field with its help text; `more` holds unit, note, default_1_4, default_factory and pydantic's bounds."""
    extra = {"group": group} | {key: more.pop(key) for key in ("unit", "note", "default_1_4") if key in more}
    if "default_factory" not in more:
        more["default"] = default
    return Field(description=help_text, json_schema_extra=extra, **more)


def refuse(reason: str, details: Mapping[str, Any] | None = None) -> NoReturn:
    """Reject a value with a sentence for people; `details["nearest"]` may hold a better value."""
    raise PydanticCustomError("refused", "{reason}", {"reason": reason, **(details or {})})
