"""The profile screen: a form made from the schema, the text that it becomes, and a look at the prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import ScreenResume
from textual.widgets import Input, Static

from heretic_tui.formats import one_line, plain
from heretic_tui.screens.profile.files import ProfileFiles
from heretic_tui.screens.profile.values import ProfileValues
from heretic_tui.widgets.rows import Column, Row, Rows
from heretic_tui.widgets.setting_field import Line, SettingForm, SettingRows
from heretic_tui.widgets.text_view import TextView

if TYPE_CHECKING:
    from heretic_tui.profile.draft import Draft
    from heretic_tui.profile.form import Field, Section

WIDE = 132
"""Columns from which on the form and a view of its text stand side by side."""
TABLE = "[]"
"""Opens the key of a table's heading in the list of settings."""


class ProfileScreen(ProfileValues, ProfileFiles):
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
        Binding("b", "start", "Begin", id="profile.start", tooltip="Begin a study with this profile"),
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

    def on_screen_resume(self, event: ScreenResume) -> None:
        """Take a profile that was chosen elsewhere, or notice that the file was changed."""
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
        if (table := self.table()) is not None and table.is_prompt_set:
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
        found = self.table()
        if found is None:
            return Content("")
        words = "v shows the first prompts · E edits the table as TOML" if found.is_prompt_set else "E edits it as TOML"
        idle = f"\n! {found.idle}" if found.idle else ""
        return Content.assemble(plain(found.help), (f"\n{words}", "$foreground-muted"), (idle, "$warning"))

    def table(self) -> "Section | None":
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
        self.keep_typed()
        if event.rows.id == "groups":
            self.words = ""
            self._show_settings()
        else:
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
