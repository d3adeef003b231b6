"""A profile while it is edited: what it was, what it has become; kept on disk so that nothing unsaved is lost."""

import difflib
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from heretic_tui import paths
from heretic_tui.profile import store
from heretic_tui.profile.files import read_text, write_text
from heretic_tui.profile.problems import ProfileError
from heretic_tui.profile.store import LoadedProfile

Sign = Literal[" ", "+", "-", "@"]
MEMORY = 200
"""How many changes can be taken back."""


@dataclass(frozen=True)
class Draft:
    """A profile as it is edited, and as its file was when it was last read or written."""

    loaded: LoadedProfile
    saved: LoadedProfile
    past: tuple[LoadedProfile, ...] = ()

    @property
    def name(self) -> str:
        """The profile's name for people."""
        return Path(self.loaded.name).stem if self.loaded.path else self.loaded.name

    @property
    def builtin(self) -> bool:
        """Whether it has no file of its own yet."""
        return self.loaded.path is None

    @property
    def text(self) -> str:
        """The TOML that it will become."""
        return self.loaded.document.as_string()

    @property
    def unsaved(self) -> bool:
        """Whether it differs from its file."""
        return self.text != self.saved.document.as_string()

    def changed(self, loaded: LoadedProfile) -> "Draft":
        """With another state, which can be taken back."""
        if loaded.document.as_string() == self.text:
            return self
        return replace(self, loaded=loaded, past=(*self.past, self.loaded)[-MEMORY:])

    def undone(self) -> "Draft":
        """As before the last change."""
        return replace(self, loaded=self.past[-1], past=self.past[:-1]) if self.past else self

    def reread(self, saved: LoadedProfile) -> "Draft":
        """With the file as it now is, in place of all changes; they can be taken back."""
        return replace(self.changed(saved), loaded=saved, saved=saved)

    def written(self, before: "Draft", saved: LoadedProfile) -> "Draft":
        """After the state `before` was saved; what was changed since then stays."""
        here = {"path": saved.path, "name": saved.name}
        loaded = saved if self.loaded is before.loaded else replace(self.loaded, **here)  # type: ignore[arg-type]
        return Draft(loaded, saved, tuple(replace(one, **here) for one in self.past))  # type: ignore[arg-type]

    def moved(self, path: Path) -> "Draft":
        """After its file was given another name."""
        here = {"path": path, "name": path.name}
        loaded, saved = replace(self.loaded, **here), replace(self.saved, **here)  # type: ignore[arg-type]
        return Draft(loaded, saved, tuple(replace(one, **here) for one in self.past))  # type: ignore[arg-type]

    def with_text(self, text: str) -> "Draft":
        """With another text, as an editor has left it. Raises `ProfileError`."""
        loaded = store.from_text(text, self.loaded.name)
        return self.changed(replace(loaded, path=self.loaded.path))

    def to_run(self) -> LoadedProfile:
        """What a study is begun with; a changed built-in profile is not called by the name of the unchanged one."""
        return replace(self.loaded, name=f"{self.name}-changed") if self.builtin and self.unsaved else self.loaded

    def difference(self) -> list[tuple[Sign, str]]:
        """The lines that differ from the file's, with those around them: a unified difference."""
        return difference(self.saved.document.as_string(), self.text)


def difference(old: str, new: str) -> list[tuple[Sign, str]]:
    """A unified difference of two texts, line by line, each with its sign; `@` heads a part."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=3)
    found: list[tuple[Sign, str]] = []
    for number, line in enumerate(lines):
        if number < 2:
            continue  # the two names
        sign = line[:1]
        if sign == "@":
            found.append(("@", line))
        elif sign in {"+", "-", " "}:
            found.append((sign, line[1:]))  # type: ignore[arg-type]
    return found


def moved_on(draft: Draft) -> str | None:
    """What something else has made of the file since it was read: its text, or why it has none; None where nothing."""
    path = draft.saved.path
    if path is None:
        return None
    try:
        text = read_text(path)
    except ProfileError as error:
        return str(error)
    return None if text == draft.saved.document.as_string() else text


def keep(draft: Draft) -> None:
    """Write the unsaved changes down, or forget them where there are none. Raises `ProfileError`."""
    if not draft.unsaved:
        forget(draft)
        return
    content = {
        "name": draft.loaded.name,
        "path": str(draft.loaded.path) if draft.loaded.path else None,
        "saved": draft.saved.document.as_string(),
        "text": draft.text,
    }
    write_text(_file(draft.loaded), json.dumps(content, ensure_ascii=False, indent=1))


def forget(draft: Draft) -> None:
    """Drop what was written down of a profile."""
    with suppress(OSError):
        _file(draft.loaded).unlink(missing_ok=True)


def begin(name_or_path: str | None) -> tuple[Draft, bool]:
    """A profile to edit, with its unsaved changes; the flag tells whether there were any. Raises `ProfileError`."""
    try:
        saved = store.resolve(name_or_path)
    except ProfileError:
        # A file that has been broken meanwhile must not take the unsaved changes along.
        found = next((one for one in _all() if name_or_path in {_stem(one.loaded), str(one.loaded.path)}), None)
        if found is None:
            raise
        return found, True
    kept = _read(_file(saved))
    if kept is None or not kept.unsaved or kept.text == saved.document.as_string():
        return Draft(saved, saved), False
    return kept, True


def latest() -> Draft | None:
    """The unsaved changes that were made last."""
    return next(iter(_all()), None)


def unsaved_names() -> set[str]:
    """The names of the profiles that have unsaved changes."""
    return {_stem(one.loaded) for one in _all()}


def _all() -> Sequence[Draft]:
    folder = paths.drafts_dir()
    files = sorted(folder.glob("*.json"), key=lambda file: -file.stat().st_mtime_ns) if folder.is_dir() else []
    return [draft for file in files if (draft := _read(file)) is not None and draft.unsaved]


def _read(file: Path) -> Draft | None:
    """A draft from its file; None where it is gone or damaged, which costs no more than the draft."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        path = Path(content["path"]) if content["path"] else None
        states = [store.from_text(content[which], content["name"]) for which in ("text", "saved")]
    except (OSError, ValueError, KeyError, TypeError, ProfileError):
        return None
    loaded, saved = (replace(one, path=path) for one in states)
    return Draft(loaded, saved)


def _file(loaded: LoadedProfile) -> Path:
    identity = str(loaded.path.absolute()) if loaded.path else f"builtin:{loaded.name}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return paths.drafts_dir() / f"{_stem(loaded)}-{digest}.json"


def _stem(loaded: LoadedProfile) -> str:
    return Path(loaded.name).stem if loaded.path else loaded.name
