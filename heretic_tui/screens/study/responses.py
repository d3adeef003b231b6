"""The responses of a trial beside the original model's, with their labels, which the person may overrule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from heretic_tui.engine.records import Label, Response, Score
from heretic_tui.formats import heading, one_line, plain
from heretic_tui.screens.frame import SCREENS
from heretic_tui.state import StudyView
from heretic_tui.widgets.key_bar import KeyBar
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.widgets.status_line import StatusLine
from heretic_tui.widgets.text import data

SIGNS = {Label.ANSWER: "·", Label.REFUSAL: "✗", Label.DEGENERATE: "≈"}
UNFINISHED = "⋯"
ENDS = {
    "eos": "ended",
    "length": "cut at its length",
    "decided": "cut: decided",
    "stopped": "not whole: the trial ended early",
}
NEXT = {None: Label.ANSWER, Label.ANSWER: Label.REFUSAL, Label.REFUSAL: Label.DEGENERATE, Label.DEGENERATE: None}
"""What the next press of the key makes of an overruled label; None is the measured one."""
SHOWN = ("all", "refusals", "changed", "overruled")


@dataclass
class Pages:
    """All that the browser shows of one trial, as read from the run's folder."""

    trial: int
    responses: list[Response]
    base: list[Response]
    overruled: dict[int, Label]
    scores: Mapping[str, Score]
    corrected: Mapping[str, Score]

    def label(self, index: int) -> Label:
        """The label that holds: the person's, else the measured one."""
        return self.overruled.get(index, self.responses[index].label)

    def sign(self, index: int) -> str:
        """The label as one character; a response that is not whole has none of its own."""
        unfinished = self.responses[index].ended == "stopped" and index not in self.overruled
        return UNFINISHED if unfinished else SIGNS[self.label(index)]

    def before(self, index: int) -> Response | None:
        """The original model's response to the same prompt."""
        own = self.responses[index]
        if index < len(self.base) and self.base[index].prompt == own.prompt:
            return self.base[index]
        return next((one for one in self.base if (one.prompt_set, one.prompt) == (own.prompt_set, own.prompt)), None)


def read_pages(study: StudyView, trial: int) -> Pages:
    """Read a trial's responses. Raises `EngineError`; takes a moment."""
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.engine.study.relabelling import corrected

    run = Run(study.path)
    responses, overruled = run.responses(trial), run.overruled(trial)
    scores = study.base if trial == 0 else study.records[trial].scores
    base = responses if trial == 0 else run.responses(0)
    specs = run.profile.scorer_specs()
    return Pages(trial, responses, base, overruled, scores, corrected(scores, responses, overruled, specs))


class ResponsesScreen(Screen[None]):
    """Prompts at the left; at the right what the original model and the trial said to the chosen one."""

    CSS_PATH = "responses.tcss"
    HELP: ClassVar[str] = """
    Signs: ✗ refusal, · answer, ≈ no language any more, ⋯ not whole because the trial ended early; a * marks a label
    that you have overruled.

    Space overrules the label under the cursor: answer, refusal, no language, and back to the measured one. The
    corrected score stands beside the measured one in the title; the search goes on with the measured one.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="responses.back"),
        Binding("space", "overrule", "Overrule label", id="responses.overrule"),
        Binding("v", "view", "Show", id="responses.view", tooltip="All, refusals, changed ones, overruled ones"),
        Binding("slash", "filter", "Filter", key_display="/", id="responses.filter"),
        Binding("left", "trial(-1)", "Trial before", show=False, id="responses.left"),
        Binding("right", "trial(1)", "Trial after", show=False, id="responses.right"),
        Binding("y", "copy", "Copy", show=False, id="responses.copy", tooltip="Copy prompt and responses"),
    ]

    def __init__(self, study: StudyView, trial: int) -> None:
        super().__init__()
        self.study, self.trial = study, trial
        self.pages: Pages | None = None
        self.view = "all"

    def compose(self) -> ComposeResult:
        """The list, and the two responses."""
        yield StatusLine(SCREENS)
        yield Static("", id="title", markup=False)
        with Horizontal(id="browser"):
            with Vertical(id="prompts", classes="panel"):
                yield Input(placeholder="filter prompts and responses", id="filter")
                yield Rows(Column("", 3), Column(""), empty="No prompt fits. v shows others, escape clears the filter.")
            with Vertical(id="texts"):
                yield VerticalScroll(Static("", id="prompt", markup=False), id="promptbox", classes="panel")
                with Horizontal(id="answers"):
                    yield VerticalScroll(Static("", id="base", markup=False), id="basebox", classes="panel")
                    yield VerticalScroll(Static("", id="own", markup=False), id="ownbox", classes="panel")
        yield KeyBar()

    def on_mount(self) -> None:
        """Read the responses."""
        self.query_one("#promptbox").border_title = "Prompt"
        self.query_one(Rows).focus()
        self._read()

    def on_resize(self) -> None:
        """Side by side where there is room, else one above the other."""
        self.query_one("#answers").set_class(self.size.width < 110, "-stacked")

    def _read(self) -> None:
        self.run_worker(partial(self._read_now, self.trial), thread=True, exclusive=True, exit_on_error=False)

    def _read_now(self, trial: int) -> None:
        from heretic_tui.engine.errors import EngineError

        try:
            pages = read_pages(self.study, trial)
        except EngineError as error:
            self.app.call_from_thread(self.query_one("#title", Static).update, plain(str(error)))
            return
        self.app.call_from_thread(self._show, pages)

    def _show(self, pages: Pages) -> None:
        if self.is_mounted and pages.trial == self.trial:
            self.pages = pages
            self._show_list()
            self._show_title()

    def _show_title(self) -> None:
        pages = self.pages
        if pages is None:
            return
        name = "original model" if pages.trial == 0 else f"trial {pages.trial}"
        parts = [f" {one_line(self.study.name)} · {name}"]
        for key, score in pages.scores.items():
            corrected = pages.corrected.get(key, score)
            told = "" if corrected == score else f" measured, {corrected.text} corrected"
            parts.append(f"{heading(key)} {score.text}{told}")
        self.query_one("#title", Static).update("   ".join(parts))

    def _shown(self, pages: Pages) -> list[int]:
        words = self.query_one("#filter", Input).value.casefold().split()
        return [
            index
            for index, response in enumerate(pages.responses)
            if self._fits(pages, index)
            and all(word in f"{response.prompt} {response.response}".casefold() for word in words)
        ]

    def _fits(self, pages: Pages, index: int) -> bool:
        match self.view:
            case "refusals":
                return pages.label(index) is Label.REFUSAL
            case "changed":
                before = pages.before(index)
                return before is not None and before.label is not pages.label(index)
            case "overruled":
                return index in pages.overruled
            case _:
                return True

    def _show_list(self) -> None:
        pages = self.pages
        if pages is None:
            return
        shown = self._shown(pages)
        rows = [
            Row(
                index,
                (
                    f"{pages.sign(index)}{'*' if index in pages.overruled else ''}",
                    pages.responses[index].prompt,
                ),
                "rows--warning" if pages.label(index) is not Label.ANSWER else "",
            )
            for index in shown
        ]
        panel = self.query_one("#prompts")
        panel.border_title = f"{len(rows)} of {len(pages.responses)} · {self.view}"
        self.query_one(Rows).show(rows)
        self._show_texts()

    def _show_texts(self) -> None:
        pages, index = self.pages, self.query_one(Rows).key
        if pages is None or index is None:
            for name in ("#prompt", "#base", "#own"):
                self.query_one(name, Static).update("")
            return
        response, before = pages.responses[index], pages.before(index)
        self.query_one("#prompt", Static).update(plain(response.prompt))
        self.query_one("#promptbox").border_subtitle = data(response.prompt_set)
        self.query_one("#own", Static).update(_lit(response))
        own = self.query_one("#ownbox")
        own.border_title = "Original model" if pages.trial == 0 else f"Trial {pages.trial}"
        own.border_subtitle = data(_words(response, pages.overruled.get(index)))
        base = self.query_one("#basebox")
        base.display = pages.trial != 0
        base.border_title = "Original model"
        if before is not None:
            self.query_one("#base", Static).update(_lit(before))
            base.border_subtitle = data(_words(before, None))
        else:
            self.query_one("#base", Static).update("")

    def on_rows_moved(self) -> None:
        """Show the responses to the prompt under the cursor."""
        self._show_texts()

    def on_input_changed(self) -> None:
        """Filter while it is typed."""
        self._show_list()

    def on_input_submitted(self) -> None:
        """Go from the filter to the list."""
        self.query_one(Rows).focus()

    def action_filter(self) -> None:
        """Type words that prompt or response must hold."""
        self.query_one("#filter").add_class("-shown")
        self.query_one("#filter").focus()

    def action_view(self) -> None:
        """Show all, or only refusals, changed or overruled ones."""
        self.view = SHOWN[(SHOWN.index(self.view) + 1) % len(SHOWN)]
        self._show_list()

    def action_overrule(self) -> None:
        """Give the response another label."""
        pages, index = self.pages, self.query_one(Rows).key
        if pages is None or index is None:
            return
        label = NEXT[pages.overruled.get(index)]
        if label is pages.responses[index].label:
            label = NEXT[label]
        if label is None:
            pages.overruled.pop(index, None)
        else:
            pages.overruled[index] = label
        self._show_list()
        self.run_worker(partial(self._keep, pages.trial, index, label), thread=True, group="keep", exit_on_error=False)

    def _keep(self, trial: int, index: int, label: Label | None) -> None:
        from heretic_tui.engine.errors import EngineError
        from heretic_tui.engine.runs.run import Run

        try:
            Run(self.study.path).overrule(trial, index, label)
            pages = read_pages(self.study, trial)
        except EngineError as error:
            self.app.call_from_thread(self.notify, plain(str(error)), severity="error", markup=False)
            return
        self.app.call_from_thread(self._corrected, pages)

    def _corrected(self, pages: Pages) -> None:
        if self.pages is not None and self.pages.trial == pages.trial:
            self.pages.corrected = pages.corrected
            self._show_title()

    def action_trial(self, by: int) -> None:
        """Show the same prompt of the next trial of the front, or of the original model."""
        numbers: Sequence[int] = [0, *(record.trial for record in self.study.front)]
        place = numbers.index(self.trial) + by if self.trial in numbers else 1
        trial = numbers[max(0, min(place, len(numbers) - 1))]
        if trial != self.trial:
            self.trial = trial
            self._read()

    def action_copy(self) -> None:
        """Copy what is shown."""
        pages, index = self.pages, self.query_one(Rows).key
        if pages is None or index is None:
            return
        response, before = pages.responses[index], pages.before(index)
        base = f"\n\n[original model]\n{before.response}" if before and pages.trial else ""
        text = f"[prompt]\n{response.prompt}{base}\n\n[trial {pages.trial}]\n{response.response}\n"
        self.app.copy_to_clipboard(plain(text))
        self.notify("Copied.", markup=False)

    def action_back(self) -> None:
        """Escape clears the filter, then goes back to the study."""
        field = self.query_one("#filter", Input)
        if field.value or field.has_focus:
            field.value = ""
            field.remove_class("-shown")
            self.query_one(Rows).focus()
        else:
            self.dismiss(None)


def _words(response: Response, overruled: Label | None) -> str:
    """The label and why, in words."""
    parts = [str(response.label) if overruled is None else f"{overruled} (you), {response.label} (measured)"]
    if response.marker:
        parts.append(f"marker “{one_line(response.marker)}”")
    parts.append(ENDS.get(response.ended, ""))
    if response.answer is not None:
        right = {True: "right", False: "wrong"}.get(bool(response.correct), "")
        parts.append(f"known answer {one_line(response.answer)}: {right}")
    return " · ".join(part for part in parts if part)


def _lit(response: Response) -> Content:
    """The response with its marker lit, where the marker stands in it as it is."""
    text = plain(response.response) or "(nothing)"
    place = text.casefold().find(response.marker.casefold()) if response.marker else -1
    if place < 0 or not response.marker:
        return Content(text)
    end = place + len(response.marker)
    return Content.assemble(text[:place], (text[place:end], "reverse $warning"), text[end:])
