"""The views beside the form: the text, the difference, prompts, and where a run differs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from heretic_tui.engine.events import Event, PromptsPreviewed
from heretic_tui.formats import one_line
from heretic_tui.screens.dialogs import Pick
from heretic_tui.screens.profile.desk import ProfileDesk
from heretic_tui.widgets.rows import Column, Row
from heretic_tui.widgets.setting_field import SettingRows
from heretic_tui.widgets.text_view import Line, TextView

if TYPE_CHECKING:
    from heretic_tui.profile.draft import Draft
    from heretic_tui.profile.schema import Profile
    from heretic_tui.profile.store import Difference

SIGNS = {"+": "$success", "-": "$error", "@": "$primary", " ": "$foreground-muted"}
View = tuple[str, list[Line], int | None]
"""A title, lines, and the number of the line to light."""


class ProfileViews(ProfileDesk):
    """The part of the profile screen that shows what the profile becomes and what it asks for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "view('toml')", "TOML", id="profile.toml", tooltip="The TOML that it will become"),
        Binding("d", "view('difference')", "Diff", id="profile.difference", tooltip="The difference to the saved file"),
        Binding(
            "v",
            "view('prompts')",
            "Prompts",
            show=False,
            id="profile.prompts",
            tooltip="The first prompts of a prompt set",
        ),
        Binding("f", "view('run')", "Run", show=False, id="profile.run", tooltip="Where the shown run differs"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.view = ""
        """What the side shows; empty where it is put away."""
        self.preview: PromptsPreviewed | str = ""
        self.run_profile: tuple[Path, Profile] | None = None
        self._run_asked: Path | None = None
        """The run whose profile was last asked for; it may be unreadable, and is not asked for again."""

    @property
    def _covers(self) -> bool:
        """Whether there is room for the form or the side only."""
        return self.has_class("-narrow") and self.has_class("-low")

    def action_view(self, view: str) -> None:
        """Show a view beside or instead of the form, or put it away."""
        if view == self.view:
            self.view = ""
        else:
            self.view = view
            if view == "prompts":
                self._preview()
        self.query_one("#side").set_class(bool(self.view), "-shown")
        self.query_one("#form").set_class(bool(self.view), "-hidden")
        if self.view and self._covers:
            self.query_one("#text").focus()
        elif not self.view:
            self.query_one(SettingRows).focus()
        self._show_side()

    def _show_side(self) -> None:
        draft = self.draft
        if draft is None or not self.view:
            return
        views = {"toml": self._toml, "difference": self._difference, "prompts": self._prompts, "run": self._run}
        title, lines, mark = views[self.view](draft)
        self.query_one("#side").border_title = Content(one_line(title))
        self.query_one("#text", TextView).show(lines, mark)

    def _toml(self, draft: "Draft") -> View:
        from heretic_tui.profile.form import styled_toml

        styles = {"comment": "$foreground-muted", "table": "bold $primary", "key": ""}
        lines = [(line or " ", styles[kind]) for kind, line in styled_toml(draft.text)]
        return "The TOML that it will become", lines, self._line_of_cursor(draft)

    def _line_of_cursor(self, draft: "Draft") -> int | None:
        from heretic_tui.profile.lines import lines_of

        if field := self.field:
            line = lines_of(draft.text).get(field.path)
            return line - 1 if line else None
        return None

    def _difference(self, draft: "Draft") -> View:
        lines = [(f"{sign} {line}" if sign != "@" else line, SIGNS[sign]) for sign, line in draft.difference()]
        what = f"the built-in {draft.name}" if draft.builtin else draft.saved.name
        return f"Difference to {what}", lines or [(f"Nothing differs from {what}.", "$foreground-muted")], None

    # The prompts

    def _preview(self) -> None:
        table, draft = self.table(), self.draft
        if draft is None:
            return
        from heretic_tui.profile import form

        sets = form.prompt_sets(draft.loaded)
        if table is not None and table.key in sets:
            self._preview_set(table.key)
            return
        rows = [Row(name, (name, value.dataset, value.split or "")) for name, value in sets.items()]
        self.preview = "No prompt set is chosen."
        columns = (Column("prompt set", 34), Column("from"), Column("", 14, drop=1))
        self.app.push_screen(
            Pick("See the first prompts of", columns, rows), lambda name: self._preview_set(name) if name else None
        )

    def _preview_set(self, name: str) -> None:
        if self.draft is None:
            return
        from heretic_tui.profile import form

        found = form.prompt_sets(self.draft.loaded)[name]
        self.preview = f"Reading {name} …"
        self.control.preview(name, found, self.draft.loaded.profile)
        self._show_side()

    def _prompts(self, draft: "Draft") -> View:
        told = self.preview
        if isinstance(told, str):
            return "Prompts", [(told, "$foreground-muted")], None
        title = f"Prompts of {told.prompt_set}"
        if told.problem:
            return title, [(f"✗ {told.problem}", "$error")], None
        how = (
            "as the model sees them, after its chat template"
            if told.templated
            else "as they stand, with prefix and suffix; load a model to see its chat template around them"
        )
        lines: list[Line] = [(f"{told.total} prompts; the first {len(told.texts)} {how}.", "$foreground-muted")]
        for number, text in enumerate(told.texts, 1):
            lines += [(" ", ""), (f"{number}", "bold $primary"), (text, "")]
        return title, lines, None

    # The run that is shown

    def engine_changed(self, events: Sequence[Event]) -> None:
        """Take in a preview, and notice that another run is shown."""
        for event in events:
            if isinstance(event, PromptsPreviewed):
                self.preview = event
                if self.view == "prompts":
                    self._show_side()
        shown = self.state.shown
        if shown != self._run_asked:
            self._run_asked, self.run_profile = shown, None
            if shown is not None:
                self.aside(partial(_profile_of, shown), self._run_read, "run")
            self._show_run()

    def _run_read(self, found: "tuple[Path, Profile] | None") -> None:
        if found is not None and found[0] == self.state.shown:
            self.run_profile = found
            self._show_run()

    def _differences(self) -> "list[Difference]":
        if self.run_profile is None or self.draft is None:
            return []
        from heretic_tui.profile.form import run_differences

        return run_differences(self.run_profile[1], self.draft.loaded.profile)

    def _show_run(self) -> None:
        note, count = self.query_one("#run-note", Static), len(self._differences())
        note.set_class(bool(count), "-shown")
        if count and self.run_profile:
            name = one_line(self.run_profile[0].name)
            what = "1 setting differs" if count == 1 else f"{count} settings differ"
            note.update(f"≠ {what} from those that the run keeps (f shows them): {name}")

    def _run(self, draft: "Draft") -> View:
        if self.run_profile is None:
            return "The run", [("No run is shown; open one on the models screen (1).", "$foreground-muted")], None
        from heretic_tui.profile.form import difference_texts

        name = self.run_profile[0].name
        lines: list[Line] = []
        for key, theirs, here in difference_texts(self._differences()):
            lines += [(key, "bold"), (f"  run   {theirs}", "$foreground-muted"), (f"  here  {here}", ""), (" ", "")]
        return (
            f"Where {name} differs",
            lines or [("It has the same settings as this profile.", "$foreground-muted")],
            None,
        )


def _profile_of(path: Path) -> "tuple[Path, Profile] | None":
    from heretic_tui.engine.errors import EngineError
    from heretic_tui.engine.runs.run import Run
    from heretic_tui.profile.problems import ProfileError

    try:
        return path, Run(path).profile
    except (EngineError, ProfileError):
        return None
