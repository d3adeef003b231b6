"""What the profile screen does with files: open, save, rename, delete, edit outside; nothing unsaved is ever lost."""

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType

from heretic_tui import logs, paths
from heretic_tui.screens.dialogs import Ask, Confirm, Pick
from heretic_tui.screens.profile.desk import ProfileDesk
from heretic_tui.screens.profile.value_dialog import Broken
from heretic_tui.widgets.rows import Column, Row

if TYPE_CHECKING:
    from heretic_tui.profile.draft import Draft
    from heretic_tui.profile.problems import ProfileError
    from heretic_tui.profile.store import LoadedProfile, ProfileEntry


class ProfileFiles(ProfileDesk):
    """The half of the profile screen that deals with files; `draft` is the profile that is edited."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "save", "Save", id="profile.save", tooltip="Save the profile"),
        Binding("ctrl+s", "save", "Save", show=False, id="profile.save-anywhere", tooltip="Save the profile"),
        Binding("o", "open", "Open", id="profile.open", tooltip="Choose another profile"),
        Binding("a", "save_as", "Save as", show=False, id="profile.save-as", tooltip="Save under another name"),
        Binding("D", "duplicate", "Duplicate", show=False, id="profile.duplicate", tooltip="Duplicate this profile"),
        Binding("R", "rename", "Rename", show=False, id="profile.rename", tooltip="Rename this profile"),
        Binding("X", "delete", "Delete", show=False, id="profile.delete", tooltip="Delete this profile"),
        Binding("ctrl+r", "revert", "Revert", show=False, id="profile.revert", tooltip="Reset all to what is saved"),
        Binding("e", "edit_outside", "Editor", show=False, id="profile.editor", tooltip="Open in $VISUAL or $EDITOR"),
    ]

    # Open

    def begin(self, name: str | None = None) -> None:
        """Edit a profile; without a name the one that was being edited, or the default one."""

        keep = self._keeper()

        def work() -> "tuple[Draft, bool]":
            from heretic_tui.profile import draft
            from heretic_tui.profile.settings import settings

            keep()
            settings()  # the form is made from them; they take a moment the first time
            if name is None and (latest := draft.latest()) is not None:
                return latest, True
            return draft.begin(name)

        self.aside(work, self._begun)

    def _begun(self, found: "tuple[Draft, bool]") -> None:
        draft, unsaved = found
        self.take(draft)
        if unsaved:
            self.tell(f"Your unsaved changes to {draft.name} are back. ctrl+r drops them.")
        self.look_at_disk()

    def action_open(self) -> None:
        """Choose another profile."""

        keep = self._keeper()

        def work() -> "tuple[list[ProfileEntry], set[str]]":
            from heretic_tui.profile import draft, store

            keep()
            return store.list_profiles(), draft.unsaved_names()

        self.aside(work, self._choose)

    def _choose(self, found: "tuple[list[ProfileEntry], set[str]]") -> None:
        entries, unsaved = found
        rows = [
            Row(
                str(one.path or one.name),
                ("●" if one.name in unsaved else "", one.name, "built in" if one.builtin else "own", one.summary),
            )
            for one in entries
        ]
        columns = (Column("", 1), Column("profile", 22), Column("", 8), Column("what it is"))
        now = str(self.draft.saved.path or self.draft.saved.name) if self.draft else None
        self.app.push_screen(Pick("Open a profile (● has unsaved changes)", columns, rows, key=now), self._chosen)

    def _chosen(self, name: str | None) -> None:
        if name is None:
            return
        from heretic_tui.profile.problems import ProfileError

        keep = self._keeper()

        def work() -> "tuple[Draft, bool] | ProfileError":
            from heretic_tui.profile import draft

            keep()
            try:
                return draft.begin(name)
            except ProfileError as error:
                return error

        self.aside(work, partial(self._opened, name))

    def _opened(self, name: str, found: "tuple[Draft, bool] | ProfileError") -> None:
        if isinstance(found, tuple):
            self._begun(found)
            return
        path = Path(name)
        self._show_broken(
            f"{path.name} cannot be used",
            "The profile that was open stays open.",
            found,
            lambda: self._edit_file(path, lambda _: self._chosen(name)),
        )

    def _show_broken(self, title: str, words: str, error: "ProfileError", edit: Callable[[], None]) -> None:
        lines = [f"line {one.line}: {one}" if one.line else str(one) for one in error.problems]
        self.app.push_screen(Broken(title, words, lines), lambda again: edit() if again else None)

    # Save

    def action_save(self) -> None:
        """Save; a built-in profile asks for a name, a file that has changed meanwhile what to do."""
        draft = self.draft
        if draft is None:
            return
        if draft.builtin:
            if draft.unsaved:
                self.action_save_as()
            else:
                self.tell(f"{draft.name} is built in and unchanged; a saves it under a name of your own.")
            return

        def work() -> str | None:
            from heretic_tui.profile.draft import moved_on

            return moved_on(draft)

        def then(moved: str | None) -> None:
            self._seen = moved
            if moved in {None, draft.text}:
                self._write()
            else:
                self._ask_conflict()

        self.aside(work, then)

    def _write(self) -> None:
        draft = self.draft
        if draft is None:
            return

        def work() -> "LoadedProfile":
            from heretic_tui.profile import store

            return store.save(draft.loaded)

        self.aside(work, partial(self._saved, draft))

    def _saved(self, before: "Draft", saved: "LoadedProfile") -> None:
        from heretic_tui.profile import draft

        draft.forget(before)
        if self.draft is not None:
            self.take(self.draft.written(before, saved))
            self.tell(f"{self.draft.name} is saved.")

    def action_save_as(self) -> None:
        """Save under another name."""
        if self.draft is not None:
            self._ask_name("Save as", "", self._save_as)

    def _save_as(self, name: str) -> None:
        before = self.draft
        if before is None:
            return

        def work() -> "LoadedProfile":
            from heretic_tui.profile import store

            return store.save_as(before.loaded, name)

        self.aside(work, partial(self._saved, before))

    def _ask_name(self, question: str, value: str, then: Callable[[str], None]) -> None:
        from heretic_tui.profile import store

        def check(name: str) -> str | None:
            return None if not name or name == value else store.name_problem(name)

        ask = Ask(question, value, explanation="A name for a profile of your own, without .toml.", check=check)
        self.app.push_screen(ask, lambda name: then(name) if name and name != value else None)

    # The file on disk

    def look_at_disk(self) -> None:
        """Notice that something else has changed the file: read it again, or ask where there are unsaved changes."""
        draft = self.draft
        if draft is None or draft.builtin:
            return

        def work() -> str | None:
            from heretic_tui.profile.draft import moved_on

            return moved_on(draft)

        def then(moved: str | None) -> None:
            # What stands on the screen may just have been written, with the answer of that still on its way.
            if moved in {None, self._seen, draft.text} or draft is not self.draft:
                return
            self._seen = moved  # asked once; after that, saving asks
            if draft.unsaved:
                self._ask_conflict()
            else:
                self._reread("changed on disk and was read again")

        self.aside(work, then)

    def _see(self) -> None:
        """Take note of what stands on disk, so that it is not told twice."""
        if self.draft is not None:
            from heretic_tui.profile.draft import moved_on

            self._seen = moved_on(self.draft)

    def _ask_conflict(self) -> None:
        draft = self.draft
        if draft is None or self.uppermost is not self:
            return
        rows = [
            Row("reload", ("reload", "take what stands in the file; u brings your changes back")),
            Row("overwrite", ("overwrite", "save your profile over it")),
            Row("save as", ("save as", "keep both: save yours under another name")),
            Row("later", ("later", "go on editing; saving asks again")),
        ]
        question = f"{draft.saved.name} was changed by something else since it was read"
        self.app.push_screen(Pick(question, (Column("", 10), Column("")), rows), self._resolve)

    def _resolve(self, answer: str | None) -> None:
        match answer:
            case "reload":
                self._reread("was read again")
            case "overwrite":
                self._write()
            case "save as":
                self.action_save_as()

    def _reread(self, words: str) -> None:
        draft = self.draft
        if draft is None or draft.saved.path is None:
            return
        path = draft.saved.path
        from heretic_tui.profile.problems import ProfileError

        def work() -> "LoadedProfile | ProfileError":
            from heretic_tui.profile import store

            try:
                return store.load(path)
            except ProfileError as error:
                return error

        def then(found: "LoadedProfile | ProfileError") -> None:
            if isinstance(found, ProfileError):
                self._see()
                self._show_broken(
                    f"{path.name} on disk cannot be used",
                    "What is on the screen is as it was before; saving it asks first.",
                    found,
                    lambda: self._edit_file(path, lambda _: self._reread(words)),
                )
                return
            self.take((self.draft or draft).reread(found))
            self.tell(f"{path.name} {words}.")

        self.aside(work, then)

    # Change the file itself

    def action_revert(self) -> None:
        """Reset all settings to what is saved."""
        draft = self.draft
        if draft is None or not draft.unsaved:
            self.tell("Nothing differs from what is saved.")
            return
        question = Confirm(
            f"Drop all unsaved changes to {draft.name}?", "u brings them back as long as the app runs.", "Drop them"
        )
        self.app.push_screen(question, lambda yes: self.take(draft.reread(draft.saved)) if yes else None)

    def action_duplicate(self) -> None:
        """Copy the saved profile to a new one, and open it."""
        if self.draft is None:
            return
        old = self.draft.name

        def then(name: str) -> None:
            from heretic_tui.profile import store

            self.aside(lambda: store.duplicate(old, name), lambda path: self._chosen(str(path)))

        self._ask_name(f"Duplicate {old} as", "", then)

    def action_rename(self) -> None:
        """Give the profile another name."""
        draft = self.draft
        if draft is None or draft.builtin:
            self.tell("A built-in profile keeps its name; a saves it under a name of your own.")
            return

        def rename(name: str) -> "Draft":
            from heretic_tui.profile import draft as drafts
            from heretic_tui.profile import store

            path = store.rename(draft.name, name)
            drafts.forget(draft)
            return draft.moved(path)

        self._ask_name(f"Rename {draft.name} to", draft.name, lambda name: self.aside(partial(rename, name), self.take))

    def action_delete(self) -> None:
        """Delete the profile's file; asks first."""
        draft = self.draft
        if draft is None or draft.builtin:
            self.tell("A built-in profile cannot be deleted.")
            return

        def work() -> None:
            from heretic_tui.profile import draft as drafts
            from heretic_tui.profile import store

            store.delete(draft.name)
            drafts.forget(draft)

        def gone(_: None) -> None:
            self.draft = None
            self.tell(f"{draft.name} is deleted.")
            self._chosen("default")

        more = " and its unsaved changes" if draft.unsaved else ""
        question = Confirm(
            f"Delete the profile {draft.name}{more}?", f"{draft.saved.path}\nRuns keep their own settings.", "Delete"
        )
        self.app.push_screen(question, lambda yes: self.aside(work, gone) if yes else None)

    # Another editor

    def action_edit_outside(self) -> None:
        """Open the file in the person's editor; unsaved changes and built-in profiles are edited as a copy."""
        draft = self.draft
        if draft is None:
            return
        if draft.saved.path is not None and not draft.unsaved:
            self._edit_file(draft.saved.path, lambda _: self._reread("was read again"))
            return
        copy = paths.drafts_dir() / f"{draft.name}.toml"
        text = draft.text

        def work() -> None:
            from heretic_tui.profile.files import write_text

            write_text(copy, text)

        self.aside(work, lambda _: self._edit_file(copy, lambda _: self._read_copy(copy)))

    def _read_copy(self, copy: Path) -> None:
        draft = self.draft
        if draft is None:
            return
        from heretic_tui.profile.problems import ProfileError

        def work() -> "Draft | ProfileError":
            from heretic_tui.profile.files import read_text

            try:
                changed = draft.with_text(read_text(copy))
            except ProfileError as error:
                return error
            copy.unlink(missing_ok=True)
            return changed

        def then(found: "Draft | ProfileError") -> None:
            if isinstance(found, ProfileError):
                self._show_broken(
                    "What you wrote cannot be used yet",
                    f"The profile is as it was before; your text is in {copy}.",
                    found,
                    lambda: self._edit_file(copy, lambda _: self._read_copy(copy)),
                )
            else:
                self.take(found)

        self.aside(work, then)

    def _edit_file(self, path: Path, then: Callable[[Path], None]) -> None:
        command = editor()
        if not command:
            self.tell("No editor was found: set $VISUAL or $EDITOR.", "warning")
            return
        try:
            with self.app.suspend():
                code = logs.run_on_terminal([*command, str(path)])
        except SuspendNotSupported:
            self.tell("This terminal cannot be handed to an editor.", "warning")
            return
        except OSError as error:
            self.tell(f"{command[0]} could not be started: {error.strerror}. Set $VISUAL or $EDITOR.", "error")
            return
        if code:
            self.tell(f"{command[0]} ended with code {code}.", "warning")
        then(path)


def editor() -> Sequence[str]:
    """The command of the person's editor; empty where there is none."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named:
        try:
            return shlex.split(named)
        except ValueError:  # a quote that is never closed
            return [named]
    found = next((name for name in ("nano", "vi") if shutil.which(name)), None)
    return [found] if found else []
