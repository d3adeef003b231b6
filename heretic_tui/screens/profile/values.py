"""Changing values: flags, choices, words in place, longer ones in a dialog."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType

from heretic_tui.screens.dialogs import Pick
from heretic_tui.screens.profile.value_dialog import EditValue
from heretic_tui.screens.profile.views import ProfileViews
from heretic_tui.widgets.rows import Column, Row
from heretic_tui.widgets.setting_field import SettingForm

if TYPE_CHECKING:
    from heretic_tui.profile.form import Field
    from heretic_tui.profile.problems import ProfileError
    from heretic_tui.profile.store import LoadedProfile


class ProfileValues(ProfileViews):
    """The part of the profile screen that changes settings."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "undo", "Undo", show=False, id="profile.undo", tooltip="Take the last change back"),
        Binding("E", "edit_text", "As TOML", show=False, id="profile.edit-toml", tooltip="Edit the value as TOML"),
        Binding("backspace,delete", "reset", "Default", show=False, id="profile.reset", tooltip="Reset to the default"),
        Binding("space", "turn", "Toggle", show=False, id="profile.toggle", tooltip="Turn a flag, next choice"),
    ]

    edited: "Field | None" = None
    """The setting whose value was last typed in place."""

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
            if (table := self.table()) is not None and table.is_prompt_set:
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
                self.edited = field
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
        elif (table := self.table()) is not None and self.draft is not None:
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

    def keep_typed(self) -> None:
        """Take what is being typed as its setting's value, because another row was chosen; says where it cannot be."""
        from heretic_tui.profile import editing

        draft, field, form = self.draft, self.edited, self.query_one(SettingForm)
        if draft is None or field is None or not form.editing:
            return
        text = form.text
        form.close()
        if text == editing.written(field.value, "word"):
            return
        if problems := _wrong(draft.loaded, field, "word", text):
            self.tell(f"{field.key} keeps its value, since {text!r} was not taken: {'; '.join(problems)}", "error")
        else:
            self.change(lambda loaded: editing.attempt(loaded, field, text, "word"))

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


def _wrong(loaded: "LoadedProfile", field: "Field", kind: Any, text: str) -> list[str]:
    """What is wrong with an edited value, in words."""
    from heretic_tui.profile import editing
    from heretic_tui.profile.problems import ProfileError

    try:
        editing.attempt(loaded, field, text, kind)
    except ProfileError as error:
        return [str(one) for one in editing.mistakes(error, text, kind, field)]
    return []
