"""Scorers: what a profile may choose, how its tables are read, and what the engine is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from heretic_tui.profile.fields import Table, setting
from heretic_tui.profile.markers import DEFAULT_REFUSAL_MARKERS
from heretic_tui.profile.prompt_set import BAD_TEST, GOOD_TEST, Name, PromptSet

Optimization = Literal["minimize", "maximize", "none"]
PluginName = Literal[
    "heretic.scorers.keyword_rate.KeywordRate",
    "heretic.scorers.kl_divergence.KLDivergence",
    "heretic_tui.scorers.Accuracy",
]


class ScorerChoice(Table):
    """One entry of `scorers`: a scorer, and what the search does with its number."""

    plugin: PluginName = Field(description="The scorer.")
    optimization: Optimization = Field(
        description='What the search does with the score; "none" only records it.',
    )
    instance_name: Name | None = setting(
        None, "A name of its own, needed when a scorer is chosen twice; its table is then [scorer.<Scorer>_<name>]."
    )

    @property
    def plugin_table(self) -> str:
        """Name of the scorer's own table below `scorer`."""
        return self.plugin.rpartition(".")[2]

    @property
    def table(self) -> str:
        """Name of this choice's table below `scorer`."""
        return f"{self.plugin_table}_{self.instance_name}" if self.instance_name else self.plugin_table


class KeywordRateTable(Table):
    """Settings of the refusal count."""

    keyword_markers: list[Name] = setting(
        None,
        "Text whose presence in a response, in either case, makes it a refusal.",
        default_factory=lambda: list(DEFAULT_REFUSAL_MARKERS),
    )
    print_responses: bool = setting(False, "Print every prompt and response while they are being scored.")
    prompts: PromptSet = setting(
        None,
        "Prompts whose responses are searched for the markers.",
        default_factory=lambda: PromptSet(**BAD_TEST),
    )


class KLDivergenceTable(Table):
    """Settings of the KL divergence from the model as it was."""

    kl_tokens: int = setting(
        1,
        "Over how many tokens of the base model's own answer the divergence is averaged. "
        "More than one sees damage that the first token hides.",
        unit="tokens",
        ge=1,
        le=64,
    )
    prompts: PromptSet = setting(
        None,
        "Prompts over which the divergence is averaged.",
        default_factory=lambda: PromptSet(**GOOD_TEST),
    )


class AccuracyTable(Table):
    """Settings of the share of right answers."""

    keyword_markers: list[Name] = setting(
        None,
        "A response holding one of these refuses, and is never a right answer.",
        default_factory=lambda: list(DEFAULT_REFUSAL_MARKERS),
    )
    prompts: PromptSet | None = setting(None, "Prompts with their answers; `answer_column` names the column.")


ScorerTable = KeywordRateTable | KLDivergenceTable | AccuracyTable

TABLES: dict[str, type[KeywordRateTable] | type[KLDivergenceTable] | type[AccuracyTable]] = {
    "KeywordRate": KeywordRateTable,
    "KLDivergence": KLDivergenceTable,
    "Accuracy": AccuracyTable,
}


def plugin_of(table: str) -> str | None:
    """The plugin a table below `scorer` belongs to: its name, or its name and `_<instance>`."""
    return next((plugin for plugin in TABLES if table == plugin or table.startswith(f"{plugin}_")), None)


def default_choices() -> list[ScorerChoice]:
    """The scorers of a profile that names none."""
    return [
        ScorerChoice(plugin="heretic.scorers.keyword_rate.KeywordRate", optimization="minimize"),
        ScorerChoice(plugin="heretic.scorers.kl_divergence.KLDivergence", optimization="minimize"),
    ]


def default_tables() -> dict[str, ScorerTable]:
    """Every scorer's own table, with its defaults."""
    return {name: model() for name, model in TABLES.items()}


def read_tables(raw: Any) -> Any:
    """The tables below `scorer`, each with its plugin's type; an instance inherits the plugin's table key by key."""
    if not isinstance(raw, Mapping) or not raw:
        return raw
    tables = default_tables()
    problems: list[InitErrorDetails] = []
    for name, own in raw.items():
        table, found = _read_table(name, own, raw)
        problems += found
        if table is not None:
            tables[name] = table
    if problems:
        raise ValidationError.from_exception_data("scorer", problems)
    return tables


def _read_table(name: str, own: Any, raw: Mapping[str, Any]) -> tuple[ScorerTable | None, list[InitErrorDetails]]:
    plugin = plugin_of(name)
    if plugin is None:
        unknown = PydanticCustomError("extra_forbidden", "unknown scorer table")
        return None, [InitErrorDetails(type=unknown, loc=(name,), input=own)]
    if isinstance(own, Table):
        own = dict(own)
    if not isinstance(own, Mapping):
        wrong = PydanticCustomError("model_type", "expected a table")
        return None, [InitErrorDetails(type=wrong, loc=(name,), input=own)]
    general = raw.get(plugin, {})
    inherited = dict(general) if name != plugin and isinstance(general, Mapping | Table) else {}
    try:
        return TABLES[plugin].model_validate({**inherited, **own}), []
    except ValidationError as error:
        return None, [repeat(e, prefix=(name,)) for e in error.errors(include_url=False) if e["loc"][0] in own]


def repeat(error: Any, prefix: tuple[str | int, ...] = ()) -> InitErrorDetails:
    """An error of pydantic's, to be raised again further out."""
    context = {**(error.get("ctx") or {}), "reason": error["msg"]}
    again = PydanticCustomError(error["type"], "{reason}", context)
    return InitErrorDetails(type=again, loc=(*prefix, *error["loc"]), input=error["input"])


@dataclass(frozen=True, kw_only=True)
class ScorerSpec:
    """A scorer as the engine needs it, whatever form the profile has."""

    name: str
    label: str
    optimization: Optimization
    prompts: PromptSet
    print_responses: bool = False


@dataclass(frozen=True, kw_only=True)
class RefusalsSpec(ScorerSpec):
    """Count the responses that hold a marker."""

    markers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KLDivergenceSpec(ScorerSpec):
    """Divergence of the next-token distribution from the base model's, averaged over `kl_tokens` positions."""

    kl_tokens: int


@dataclass(frozen=True, kw_only=True)
class AccuracySpec(ScorerSpec):
    """Share of responses that hold the expected answer; one with a marker never does."""

    markers: tuple[str, ...]


def spec(choice: ScorerChoice, table: ScorerTable) -> ScorerSpec | None:
    """The scorer of one choice; None where its table leaves out what it cannot do without."""
    name, label = _NAMES[choice.plugin_table]
    common: dict[str, Any] = {
        "name": choice.instance_name or name,
        "label": f"{label} ({choice.instance_name})" if choice.instance_name else label,
        "optimization": choice.optimization,
        "prompts": table.prompts,
    }
    if table.prompts is None:
        return None
    match table:
        case KeywordRateTable():
            markers = tuple(table.keyword_markers)
            return RefusalsSpec(**common, markers=markers, print_responses=table.print_responses)
        case KLDivergenceTable():
            return KLDivergenceSpec(**common, kl_tokens=table.kl_tokens)
        case AccuracyTable():
            return AccuracySpec(**common, markers=tuple(table.keyword_markers))


_NAMES = {
    "KeywordRate": ("refusals", "Refusals"),
    "KLDivergence": ("kl_divergence", "KL divergence"),
    "Accuracy": ("accuracy", "Accuracy"),
}

Complain = Callable[[tuple[str | int, ...], str], None]


def check(choices: list[ScorerChoice], tables: Mapping[str, ScorerTable], complain: Complain) -> None:
    """What the choices and their tables must agree on: one objective at least, distinct names, answers for accuracy."""
    if not choices:
        return complain(("scorers",), "at least one scorer is needed")
    if all(choice.optimization == "none" for choice in choices):
        complain(("scorers",), "at least one scorer must be minimized or maximized")
    seen: set[str] = set()
    for index, choice in enumerate(choices):
        name = choice.instance_name or _NAMES[choice.plugin_table][0]
        if name in seen:
            key = "instance_name" if choice.instance_name else "plugin"
            complain(("scorers", index, key), f'a second scorer named "{name}": give it an `instance_name` of its own')
        seen.add(name)
        table = table_of(choice, tables)
        if isinstance(table, AccuracyTable) and (table.prompts is None or table.prompts.answer_column is None):
            where = ("scorer", choice.table, "prompts")
            complain(where, f'the accuracy scorer "{name}" needs prompts with an `answer_column`')
    return None


def table_of(choice: ScorerChoice, tables: Mapping[str, ScorerTable]) -> ScorerTable:
    """The table that rules a choice: its instance's, its plugin's, or the defaults."""
    found = tables.get(choice.table) or tables.get(choice.plugin_table)
    return found if found is not None else TABLES[choice.plugin_table]()
