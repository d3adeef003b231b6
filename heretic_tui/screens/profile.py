"""The profile screen: a form made from the schema, the text that it becomes, and a look at the prompts."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from heretic_tui.engine.events import Event, PromptsPreviewed
from heretic_tui.formats import one_line, plain
from heretic_tui.screens.dialogs import Pick
from heretic_tui.screens.profile_files import ProfileFiles
from heretic_tui.screens.value_dialog import EditValue
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.widgets.setting_field import Line, SettingForm, SettingRows
from heretic_tui.widgets.text_view import Line as TextLine
from heretic_tui.widgets.text_view import TextView

if TYPE_CHECKING:
    from heretic_tui.profile.draft import Draft
    from heretic_tui.profile.form import Field
    from heretic_tui.profile.problems import ProfileError
    from heretic_tui.profile.schema import Profile
    from heretic_tui.profile.store import Difference, LoadedProfile

SIGNS = {"+": "$success", "-": "$error", "@": "$primary", " ": "$foreground-muted"}
WIDE = 132
"""Columns from which on the form and a view of its text stand side by side."""
TABLE = "[]"
"""Opens the key of a table's heading in the list of settings."""


class ProfileScreen(ProfileFiles):
    """Edit the profile of the next study."""

    MODE: ClassVar[str] = "profile"
    HELP: ClassVar[str] = """
    The profile says all that a study is asked to do. Groups stand at the left, the settings of a group at the right:
    ● marks a setting that differs from the saved file, * one that differs from its default. Enter edits a value,
    space turns a flag or takes the next choice, backspace puts the default back, u takes the last change back.

    A running or finished run keeps the settings that it was started with; changes here are for the next one. What is
    not saved is kept when you open another profile or quit, and comes back.
    """
    CSS_PATH = "profile.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Find", key_display="/", id="profile.filter", tooltip="Find a setting"),
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
        Binding("b", "start", "Begin", id="profile.start", tooltip="Begin a study with this profile"),
        Binding("u", "undo", "Undo", show=False, id="profile.undo", tooltip="Take the last change back"),
        Binding("E", "edit_text", "As TOML", show=False, id="profile.edit-toml", tooltip="Edit the value as TOML"),
        Binding("backspace,delete", "reset", "Default", show=False, id="profile.reset", tooltip="Reset to the default"),
        Binding("space", "turn", "Toggle", show=False, id="profile.toggle", tooltip="Turn a flag, next choice"),
        Binding("left,h", "part('groups')", "Groups", show=False, id="profile.groups"),
        Binding("right,l", "part('settings')", "Settings", show=False, id="profile.settings"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]
        self.fields: dict[str, Field] = {}
        self.words = ""
        """What is searched for; empty where a group is shown."""
        self.view = ""
        """What the side shows; empty where it is put away."""
        self.preview: PromptsPreviewed | str = ""
        self.run_profile: tuple[Path, Profile] | None = None

    def body(self) -> ComposeResult:
        """The profile's name, groups, settings, what is said of one, and the side."""
        yield Static("", id="title", markup=False)
        yield Static("", id="run-note", markup=False)
        with Horizontal(id="desk"):
            with Vertical(id="form"):
                with Horizontal():
                    with Vertical(id="groups-panel", classes="panel"):
                        yield Rows(Column("", 0), Column("", 3, "right"), id="groups")
                    with Vertical(id="settings-panel", classes="panel"):
                        yield Input(placeholder="a word of the name or the help", id="filter", compact=True)
                        yield SettingForm(empty="Reading the profile …", id="settings-form")
                with Vertical(id="details", classes="panel"):
                    yield Static("", markup=False)
            with Vertical(id="side", classes="panel"):
                yield TextView(id="text")

    def on_mount(self) -> None:
        """Read the profile."""
        self.query_one("#groups-panel").border_title = "Groups"
        self.query_one(SettingRows).focus()
        if self.app.size.width >= WIDE:
            self.action_view("toml")
        chosen = self.control.profile
        # The default one may have been taken for want of another; then what was edited last goes first.
        default = chosen is None or (chosen.path is None and chosen.name == "default")
        self.begin(None if chosen is None or default else str(chosen.path or chosen.name))

    def on_screen_resume(self) -> None:
        """Take a profile that was chosen elsewhere, or notice that the file was changed."""
        super().on_screen_resume()
        if self.draft is None:
            return
        chosen = self.control.profile
        if chosen is not None and chosen is not self.draft.loaded:
            self.begin(str(chosen.path or chosen.name))
        else:
            self.look_at_disk()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a line is typed, the keys belong to it."""
        return not (isinstance(self.focused, Input) and action in {"filter", "save"})

    # Show

    def show_draft(self) -> None:
        """Show the profile as it is now."""
        draft = self.draft
        if draft is None:
            return
        from heretic_tui.profile import form

        self.fields = {field.key: field for field in form.fields(draft.loaded, draft.saved.profile)}
        self._show_title(draft)
        self._show_groups()
        self._show_settings()
        self._show_run()
        self._show_side()

    def _show_title(self, draft: "Draft") -> None:
        count = sum(field.unsaved for field in self.fields.values())
        changes = (
            f"{count} unsaved change{'s' if count != 1 else ''}" if count else "unsaved text" if draft.unsaved else ""
        )
        parts: list[Any] = [(one_line(draft.name), "bold $primary")]
        if changes:
            parts.append((f"  ● {changes}", "bold $accent"))
        form = " · in the form of Heretic 1.4" if draft.loaded.profile.form == "1.4" else ""
        where = _home(draft.saved.path) if draft.saved.path else "built in, saving asks for a name of your own"
        parts.append((f"  {one_line(where)}{form}", "$foreground-muted"))
        self.query_one("#title", Static).update(Content.assemble(*parts))

    def _show_groups(self) -> None:
        from heretic_tui.profile import form

        rows = []
        for name, members in form.groups(self.fields.values()).items():
            unsaved, changed = sum(one.unsaved for one in members), sum(one.changed for one in members)
            mark = f"{unsaved}●" if unsaved else f"{changed}*" if changed else ""
            style = "rows--mark" if unsaved else "rows--dim" if name == form.IDLE_GROUP else ""
            rows.append(Row(name, (name, mark), style))
        self.query_one("#groups", Rows).show(rows)

    def _show_settings(self) -> None:
        from heretic_tui.profile import form

        group = self.query_one("#groups", Rows).key
        found = list(self.fields.values())
        shown = form.matching(found, self.words) if self.words else [one for one in found if one.group == group]
        lines: list[Line] = []
        for field in shown:
            around = field.section or (field.group if self.words else "")
            if around and (not lines or self._around != around):
                lines.append(self._heading(field, around))
            self._around = around
            lines.append(Line(field.key, field.label, _boxed(field), field.state, field.sign, idle=bool(field.idle)))
        rows = self.query_one(SettingRows)
        rows.empty = "No setting has these words in its name or help; esc ends the search."
        known = {line.key for line in lines}
        rows.show_lines(lines, key=rows.key if rows.key in known else shown[0].key if shown else None)
        panel = self.query_one("#settings-panel")
        panel.border_title = f"Found {len(shown)}" if self.words else str(group).capitalize()
        self._show_details()

    _around = ""

    def _heading(self, field: "Field", around: str) -> Line:
        if self.draft is None or not field.section:
            return Line(f"{TABLE}{around}", around, heading=True)
        from heretic_tui.profile import form

        table = form.section(field.path[:-1], self.draft.loaded)
        return Line(f"{TABLE}{around}", around, "(used by no scorer)" if table.idle else "", heading=True)

    def _show_details(self) -> None:
        panel, field = self.query_one("#details"), self.field
        key = self.query_one(SettingRows).key
        panel.border_title = Content(one_line(field.key if field else str(key or "").removeprefix(TABLE)))
        panel.query_one(Static).update(self._told(field) if field else self._told_table())
        if self.view == "toml":
            self._show_side()

    def _told(self, field: "Field") -> Content:
        from heretic_tui.profile import editing, form

        facts = form.facts(field)
        if (table := self._table()) is not None and table.is_prompt_set:
            facts.append("v shows the prompts")
        parts: list[Any] = [plain(field.setting.help), (f"\n{' · '.join(facts)}", "$foreground-muted")]
        if field.unsaved:
            parts.append((f"\n● was {one_line(form.value_text(field.saved, field.setting))} in the file", "$accent"))
        if field.idle:
            parts.append((f"\n! {field.idle}", "$warning"))
        if len(field.text) > 30 and editing.notation(field) not in {"toggle", "choice"}:
            parts.append((f"\n= {one_line(field.text)}", "$foreground-muted"))
        return Content.assemble(*parts)

    def _told_table(self) -> Content:
        found = self._table()
        if found is None:
            return Content("")
        words = "v shows the first prompts · E edits the table as TOML" if found.is_prompt_set else "E edits it as TOML"
        idle = f"\n! {found.idle}" if found.idle else ""
        return Content.assemble(plain(found.help), (f"\n{words}", "$foreground-muted"), (idle, "$warning"))

    def _table(self) -> Any:
        """The table that the cursor is in."""
        key = str(self.query_one(SettingRows).key or "")
        inside = next(
            (one for one in self.fields.values() if one.section and one.section == key.removeprefix(TABLE)), None
        )
        field = self.fields.get(key) or inside
        if field is None or not field.section or self.draft is None:
            return None
        from heretic_tui.profile import form

        return form.section(field.path[:-1], self.draft.loaded)

    @property
    def field(self) -> "Field | None":
        """The setting under the cursor."""
        return self.fields.get(str(self.query_one(SettingRows).key))

    # Move

    def on_rows_moved(self, event: Rows.Moved) -> None:
        """Show the group, or what is said of the setting."""
        if event.rows.id == "groups":
            self.words = ""
            self._show_settings()
        else:
            self.query_one(SettingForm).close()
            self._show_details()

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Enter goes from the group to its settings, and edits a setting."""
        if event.rows.id == "groups":
            self.query_one(SettingRows).focus()
        else:
            self.action_edit()

    def action_part(self, name: str) -> None:
        """Go to the groups or the settings."""
        self.query_one(f"#{name}").focus()

    def action_filter(self) -> None:
        """Find settings by their name or help, over all groups."""
        line = self.query_one("#filter", Input)
        line.add_class("-shown")
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the settings that fit what is typed."""
        if event.input.id == "filter":
            self.words = event.value.strip()
            self._show_settings()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go from the search to what was found."""
        if event.input.id == "filter":
            self.query_one(SettingRows).focus()

    def go_back(self) -> None:
        """Leave the search line, put the side away, end the search, or go to the settings: one after the other."""
        line = self.query_one("#filter", Input)
        if line.has_focus and self.words:
            self.query_one(SettingRows).focus()
        elif self.view and self._covers:
            self.action_view(self.view)
        elif line.has_class("-shown"):
            key = self.query_one(SettingRows).key
            field = self.fields.get(str(key))
            line.remove_class("-shown")
            with self.prevent(Input.Changed):
                line.value = ""
            self.words = ""
            if field is not None:
                self.query_one("#groups", Rows).select(field.group)
            self._show_settings()
            self.query_one(SettingRows).select(key)
            self._show_details()
            self.query_one(SettingRows).focus()
        elif self.view:
            self.action_view(self.view)
        else:
            self.query_one(SettingRows).focus()

    # Change

    def change(self, make: "Callable[[LoadedProfile], LoadedProfile]") -> bool:
        """Take a changed profile if nothing is wrong with it; returns whether it was."""
        draft = self.draft
        if draft is None:
            return False
        from heretic_tui.profile.problems import ProfileError

        try:
            loaded = make(draft.loaded)
        except ProfileError as error:
            self.refused(error)
            return False
        if loaded.profile.form != draft.loaded.profile.form:
            self.tell(
                "The profile now has the other form of Heretic's files, and that form's defaults. u takes it back."
            )
        self.take(draft.changed(loaded))
        return True

    def refused(self, error: "ProfileError") -> None:
        """Say why a change or a file was refused."""
        self.tell("\n".join(str(problem) for problem in error.problems[:4]), "error")

    def action_undo(self) -> None:
        """Take the last change back."""
        if self.draft is not None and self.draft.past:
            self.take(self.draft.undone())
        else:
            self.tell("There is nothing to take back.")

    def action_turn(self) -> None:
        """Turn a flag, or take the next choice."""
        from heretic_tui.profile import editing

        field = self.field
        if field is None:
            return
        if editing.notation(field) in {"toggle", "choice"}:
            self.change(lambda loaded: editing.put(loaded, field, editing.next_choice(field)))
        else:
            self.action_edit()

    def action_reset(self) -> None:
        """Put a setting back to its default."""
        from heretic_tui.profile import editing

        if field := self.field:
            self.change(lambda loaded: editing.to_default(loaded, field))

    def action_edit(self) -> None:
        """Edit the setting under the cursor in the way that fits it."""
        from heretic_tui.profile import editing

        field = self.field
        if field is None:
            if (table := self._table()) is not None and table.is_prompt_set:
                self.action_view("prompts")
            else:
                self.action_edit_text()
            return
        match kind := editing.notation(field):
            case "toggle":
                self.action_turn()
            case "choice":
                self._pick(field)
            case "word":
                self.query_one(SettingForm).edit(editing.written(field.value, kind))
            case _:
                self._edit_long(field, kind)

    def _pick(self, field: "Field") -> None:
        from heretic_tui.profile import editing
        from heretic_tui.profile.form import UNSET

        rows = [Row(one, (one, "default" if one == field.default else "")) for one in field.setting.choices]
        if field.setting.optional:
            rows.append(Row(UNSET, (UNSET, "")))

        def then(choice: str | None) -> None:
            if choice is not None:
                value = None if choice == UNSET else choice
                self.change(lambda loaded: editing.put(loaded, field, value))

        key = UNSET if field.value is None else field.value
        self.app.push_screen(Pick(field.key, (Column("", 0), Column("", 8)), rows, key=key), then)

    def _edit_long(self, field: "Field", kind: Any) -> None:
        from heretic_tui.profile import editing

        draft = self.draft
        if draft is None:
            return
        text = editing.written(field.value, kind, str(field.path[-1]))
        check = partial(_wrong, draft.loaded, field, kind)

        def then(text: str | None) -> None:
            if text is not None:
                self.change(lambda loaded: editing.attempt(loaded, field, text, kind))

        self.app.push_screen(EditValue(field.key, editing.hint(field, kind), text, check), then)

    def action_edit_text(self) -> None:
        """Edit the value under the cursor, or the whole table, as TOML."""
        from heretic_tui.profile import editing

        if field := self.field:
            self._edit_long(field, "tables" if editing.notation(field) == "tables" else "toml")
        elif (table := self._table()) is not None and self.draft is not None:
            self._edit_long(editing.table_field(table.path, self.draft.loaded, table.help), "body")

    # What is typed in place

    def on_setting_form_typed(self, event: SettingForm.Typed) -> None:
        """Check the value, off the screen's thread."""
        draft, field = self.draft, self.field
        if draft is None or field is None:
            return
        self.aside(
            lambda: _wrong(draft.loaded, field, "word", event.text), partial(self._checked, field.key), group="check"
        )

    def _checked(self, key: str, problems: Sequence[str]) -> None:
        form = self.query_one(SettingForm)
        if form.editing and self.field is not None and self.field.key == key:
            form.complain("; ".join(problems))

    def on_setting_form_taken(self, event: SettingForm.Taken) -> None:
        """Take the value if nothing is wrong with it, else say what is."""
        from heretic_tui.profile import editing

        draft, field, form = self.draft, self.field, self.query_one(SettingForm)
        if draft is None or field is None:
            return
        if event.text == editing.written(field.value, "word"):
            form.close()
        elif problems := _wrong(draft.loaded, field, "word", event.text):
            form.complain("; ".join(problems))
            self.app.bell()
        elif self.change(lambda loaded: editing.attempt(loaded, field, event.text, "word")):
            form.close()

    # The side

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

    def _toml(self, draft: "Draft") -> tuple[str, list[TextLine], int | None]:
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

    def _difference(self, draft: "Draft") -> tuple[str, list[TextLine], int | None]:
        lines = [(f"{sign} {line}" if sign != "@" else line, SIGNS[sign]) for sign, line in draft.difference()]
        what = f"the built-in {draft.name}" if draft.builtin else draft.saved.name
        return f"Difference to {what}", lines or [(f"Nothing differs from {what}.", "$foreground-muted")], None

    # The prompts

    def _preview(self) -> None:
        table, draft = self._table(), self.draft
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

    def _prompts(self, draft: "Draft") -> tuple[str, list[TextLine], int | None]:
        told = self.preview
        if isinstance(told, str):
            return "Prompts", [(told, "$foreground-muted")], None
        title = f"Prompts of {told.prompt_set}"
        if told.problem:
            return title, [(f"✗ {told.problem}", "$error")], None
        how = (
            "as the model sees them, after its chat template"
            if told.templated
            else ("as they stand, with prefix and suffix; load a model to see its chat template around them")
        )
        lines: list[TextLine] = [(f"{told.total} prompts; the first {len(told.texts)} {how}.", "$foreground-muted")]
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
        if (self.run_profile[0] if self.run_profile else None) != shown:
            self.run_profile = None
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
            note.update(f"≠ The run {name} keeps its own settings: {what} from these (f shows them).")

    def _run(self, draft: "Draft") -> tuple[str, list[TextLine], int | None]:
        if self.run_profile is None:
            return "The run", [("No run is shown; open one on the models screen (1).", "$foreground-muted")], None
        from heretic_tui.profile.form import difference_texts

        name = self.run_profile[0].name
        lines: list[TextLine] = []
        for key, theirs, here in difference_texts(self._differences()):
            lines += [(key, "bold"), (f"  run   {theirs}", "$foreground-muted"), (f"  here  {here}", ""), (" ", "")]
        return (
            f"Where {name} differs",
            lines or [("It has the same settings as this profile.", "$foreground-muted")],
            None,
        )

    # Begin

    def action_start(self) -> None:
        """Begin a study with this profile as it stands on the screen."""
        draft = self.draft
        if draft is None:
            return
        model = self.control.model_name or draft.loaded.profile.model
        if not model:
            self.tell("Pick a model first: 1 goes to the models.", "warning")
            return
        if self.control.worker.busy:
            self.tell(f"The engine is at work ({self.control.worker.current}); begin when it is free.", "warning")
            return
        self.control.start(model, draft.to_run())
        self.app.switch_mode("study")


def _boxed(field: "Field") -> str:
    """A flag looks like one."""
    if field.setting.kind != "flag":
        return field.text
    return f"[{'-' if field.value is None else 'x' if field.value else ' '}] {field.text}"


def _home(path: Path) -> str:
    """A path as people write it."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _wrong(loaded: "LoadedProfile", field: "Field", kind: Any, text: str) -> list[str]:
    """What is wrong with an edited value, in words."""
    from heretic_tui.profile import editing
    from heretic_tui.profile.problems import ProfileError

    try:
        editing.attempt(loaded, field, text, kind)
    except ProfileError as error:
        return [str(one) for one in editing.mistakes(error, text, kind, field)]
    return []


def _profile_of(path: Path) -> "tuple[Path, Profile] | None":
    from heretic_tui.engine.errors import EngineError
    from heretic_tui.engine.run import Run
    from heretic_tui.profile.problems import ProfileError

    try:
        return path, Run(path).profile
    except (EngineError, ProfileError):
        return None
