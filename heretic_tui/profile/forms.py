"""The two forms of the reference tool's files: 1.4.0, and the later one with scorers.

A file that sets one of six keys is in the 1.4.0 form: other defaults, and two fixed scorers. In the later form
those six hold None, so a profile's form is part of its values and survives a copy, a dump and a comparison.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic.fields import FieldInfo

from heretic_tui.profile.markers import DEFAULT_REFUSAL_MARKERS
from heretic_tui.profile.prompt_set import BAD_TEST, GOOD_TEST, PromptSet
from heretic_tui.profile.scorers import KLDivergenceSpec, RefusalsSpec, ScorerSpec

Form = Literal["1.4", "scorers"]

ONLY_1_4 = (
    "good_evaluation_prompts",
    "bad_evaluation_prompts",
    "refusal_markers",
    "kl_divergence_scale",
    "kl_divergence_target",
    "print_responses",
)
ONLY_LATER = ("scorers", "scorer")


def _set(given: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [key for key in keys if given.get(key) is not None]


def is_1_4(given: Mapping[str, Any]) -> bool:
    """Whether a file's values ask for the 1.4.0 form."""
    return bool(given_1_4(given))


def given_1_4(given: Mapping[str, Any]) -> list[str]:
    """The keys that put a file into the 1.4.0 form."""
    return _set(given, ONLY_1_4)


def mixed(given: Mapping[str, Any]) -> list[tuple[tuple[str], str]]:
    """The key that does not fit the file's other keys, and why; empty for a file of one form."""
    later = [key for key in _set(given, ONLY_LATER) if given[key]]
    old = _set(given, ONLY_1_4)
    if not (later and old):
        return []
    reason = f"`{old[0]}` belongs to Heretic 1.4.0's files and `{later[0]}` to the later ones: use one form"
    return [((old[0],), reason)]


def with_defaults(given: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """The values with the defaults of their form filled in, where those are not the fields' own."""
    values = {key: value for key, value in given.items() if value is not None or key not in ONLY_1_4 + ONLY_LATER}
    if not is_1_4(given):
        if not values.get("scorer", True):
            del values["scorer"]
        return values
    return {"scorers": [], "scorer": {}, **defaults_1_4(fields), **values}


def defaults_1_4(fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """The defaults that the 1.4.0 form has for itself."""
    extras = {name: field.json_schema_extra for name, field in fields.items()}
    return {
        n: extra["default_1_4"] for n, extra in extras.items() if isinstance(extra, dict) and "default_1_4" in extra
    }


def specs_1_4(
    good: PromptSet | None, bad: PromptSet | None, markers: list[str] | None, print_responses: bool | None
) -> tuple[ScorerSpec, ...]:
    """The two scorers of the 1.4.0 form, in the order of its objectives."""
    return (
        KLDivergenceSpec(
            name="kl_divergence",
            label="KL divergence",
            optimization="minimize",
            prompts=good or PromptSet(**GOOD_TEST),
            kl_tokens=1,
        ),
        RefusalsSpec(
            name="refusals",
            label="Refusals",
            optimization="minimize",
            prompts=bad or PromptSet(**BAD_TEST),
            markers=tuple(DEFAULT_REFUSAL_MARKERS if markers is None else markers),
            print_responses=bool(print_responses),
        ),
    )
