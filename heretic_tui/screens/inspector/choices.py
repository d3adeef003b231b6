"""What can be chosen in the view of tokens: directions, prompt sets and their prompts."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.direction import layer_name
from heretic_tui.engine.inspection.direction_library import Entry
from heretic_tui.engine.inspection.shelf import OWN, Shelf
from heretic_tui.screens.dialogs import Pick
from heretic_tui.screens.inspector.chosen import MIX, Chosen, Mix
from heretic_tui.screens.inspector.directions import about
from heretic_tui.screens.inspector.part import InspectorPart
from heretic_tui.widgets.rows import Column, Row

if TYPE_CHECKING:
    from heretic_tui.engine.prompts.reading import Prompt
    from heretic_tui.profile.schema import PromptSet


def direction_rows(shelf: Shelf, row: int, entries: Sequence[Entry], mix: Mix) -> list[Row]:
    """All directions that there are while `row` is looked at: its own, the mix, saved ones, components, layers."""
    rows = []
    if shelf.vectors is not None:
        rows.append(Row(OWN, (OWN, "the direction of whatever layer is selected"), "rows--mark"))
    if mix.sliders:
        rows.append(Row(MIX, (MIX, mix.words)))
    for entry in entries:
        fits = not entry.width or not shelf.width or entry.width == shelf.width
        told = about(entry) if fits else f"width {entry.width}, this model has {shelf.width}"
        rows.append(Row(entry.name, (entry.name, told), "" if fits and not entry.problem else "rows--dim"))
    if shelf.sets is not None and shelf.has("pc:1", row):
        rows += [
            Row(f"pc:{number}", (f"component {number}", f"{share:.1%} of the variance of layer {layer_name(row)}"))
            for number, share in enumerate(shelf.components(row).shares, start=1)
        ]
    if shelf.vectors is not None:
        rows += [
            Row(f"layer:{layer_name(place)}", (f"layer {layer_name(place)}", "difference of the two sets' centres"))
            for place in range(shelf.rows)
        ]
    return rows


def choose_direction(part: InspectorPart, chosen: Chosen, row: int, question: str, then: Callable[[str], None]) -> None:
    """Ask for a direction; components of the layer are computed first, off the screen's thread."""
    shelf = chosen.shelf
    if shelf is None:
        return

    def read() -> list[Entry]:
        if shelf.sets is not None:
            with suppress(EngineError):  # told when one is asked for
                shelf.components(row)
        return shelf.library.entries()

    def offer(entries: list[Entry]) -> None:
        rows = direction_rows(shelf, row, entries, chosen.mix)
        if not rows:
            part.notify("There is no direction to choose. L imports one.", markup=False)
            return

        def answered(found: str | None) -> None:
            if found is not None:
                then(found)

        columns = (Column("direction", least=20), Column("what it is", least=20))
        part.app.push_screen(Pick(question, columns, rows, key=chosen.key), answered)

    part.compute("directions to choose", lambda: in_background(lambda _: read()), offer)


def choose_set(
    part: InspectorPart, run: Path, question: str, then: "Callable[[str, PromptSet], None]", *, whole: bool = False
) -> None:
    """Ask for one of the run's prompt sets; with `whole` also for them with the template's tokens (`good+`)."""

    def read() -> "dict[str, PromptSet]":
        from heretic_tui.engine.runs.run import Run

        profile = Run(run).profile
        return {"good": profile.good_prompts, "bad": profile.bad_prompts}

    def offer(sets: "dict[str, PromptSet]") -> None:
        from heretic_tui.engine.prompts.prompt_sets import describe

        rows = [Row(name, (f"{name} prompts", describe(one))) for name, one in sets.items()]
        if whole:
            rows += [Row(f"{name}+", (f"{name} prompts and the template", describe(one))) for name, one in sets.items()]

        def chosen(key: str | None) -> None:
            if key is not None:
                then(key, sets[key.rstrip("+")])

        part.app.push_screen(Pick(question, (Column("set", least=20), Column("source")), rows), chosen)

    part.compute("prompt sets", lambda: in_background(lambda _: read()), offer)


def choose_prompt(
    part: InspectorPart, run: Path, kept: "dict[str, list[Prompt]]", then: "Callable[[Prompt], None]"
) -> None:
    """Ask for a prompt set, then for one of its prompts; `kept` are the sets that were read before."""

    def read(prompt_set: "PromptSet") -> "Job[list[Prompt]]":
        from heretic_tui.engine.prompts.reading import load_prompts
        from heretic_tui.engine.runs.run import Run

        return (yield from load_prompts(prompt_set, Run(run).profile.system_prompt))

    def offer(name: str, prompts: "list[Prompt]") -> None:
        kept[name] = prompts
        rows = [Row(number, (str(number + 1), one.text)) for number, one in enumerate(prompts)]

        def chosen(number: int | None) -> None:
            if number is not None:
                then(prompts[number])

        columns = (Column("", 5, "right"), Column(""))
        part.app.push_screen(Pick(f"Which of the {name} prompts?", columns, rows), chosen)

    def take(name: str, prompt_set: "PromptSet") -> None:
        if name in kept:
            offer(name, kept[name])
        else:
            part.compute("prompts", partial(read, prompt_set), partial(offer, name))

    choose_set(part, run, "Which prompt set?", take)
