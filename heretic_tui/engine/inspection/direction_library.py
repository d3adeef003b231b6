"""The library of directions: a folder that all runs see, two files a direction, its numbers and what is known of it.

Nothing that was saved is ever lost: what is deleted goes to a trash folder beside the others.
"""

import os
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit
from tomlkit.exceptions import TOMLKitError

from heretic_tui.engine.errors import EngineError, write_failure
from heretic_tui.engine.files import write_atomically, write_text
from heretic_tui.engine.inspection.direction import Direction, direction, layer_name, row_of
from heretic_tui.engine.inspection.vector_files import Found, read_vectors
from heretic_tui.names import file_name
from heretic_tui.private import make_folder

TRASH = ".trash"
TENSOR = "direction"
LONGEST_NAME = 200
RESERVED = re.compile(r"(?:layer|good centre|component|pc|mix|own)\b\s*:?\s*[\d:]*|in", re.IGNORECASE)
"""Names by which directions that are in no library are asked for."""
EXPORTED = (".safetensors", ".npy", ".json")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the library knows of a direction without reading its numbers; `problem` says why it cannot be used."""

    path: Path
    """The file of the numbers."""
    name: str
    note: str = ""
    width: int = 0
    model: str = ""
    run: str = ""
    row: int | None = None
    made: str = ""
    date: str = ""
    norm: float = 1.0
    problem: str = ""

    @property
    def facts(self) -> Path:
        """The file of what is known."""
        return self.path.with_suffix(".toml")

    def as_json(self) -> dict[str, Any]:
        """The entry as plain values."""
        return {
            "name": self.name,
            "note": self.note,
            "width": self.width,
            "model": self.model,
            "run": self.run,
            "layer": None if self.row is None else layer_name(self.row),
            "made": self.made,
            "date": self.date,
            "norm": self.norm,
            "path": str(self.path),
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class DirectionLibrary:
    """The directions in a folder, which need not exist yet."""

    folder: Path

    # Reading

    def entries(self) -> list[Entry]:
        """All directions by name; damaged ones say what is wrong with them, and hold up no other."""
        try:
            files = {path for path in self.folder.iterdir() if not path.name.startswith(".")}
        except OSError:
            return []
        stems = {path.with_suffix(".safetensors") for path in files if path.suffix in {".safetensors", ".toml"}}
        return sorted((_entry(path) for path in stems), key=lambda entry: (entry.name.casefold(), entry.path.name))

    def entry(self, name: str) -> Entry:
        """The direction of this name, or of this file's name. Raises `EngineError` where there is none."""
        entries = self.entries()
        wanted = _folded(name)
        for fits in (
            [entry for entry in entries if entry.name == name],
            [entry for entry in entries if _folded(entry.name) == wanted],
            [entry for entry in entries if entry.path.stem == name],
        ):
            if fits:
                return fits[0]
        raise EngineError(f"There is no direction {name} in the library.", _offered([entry.name for entry in entries]))

    def load(self, name: str) -> Direction:
        """A direction by name. Raises `EngineError` where there is none, or its file is damaged."""
        return self.read(self.entry(name))

    def read(self, entry: Entry) -> Direction:
        """A direction's numbers. Raises `EngineError` where they are damaged."""
        if not entry.path.is_file():
            raise EngineError(f"The numbers of the direction {entry.name} are gone: {entry.path}.", "Delete it.")
        vectors = read_vectors(entry.path)
        found = next((one for one in vectors if one.key == TENSOR), vectors[0])
        return direction(
            entry.name,
            found.vector,
            made=entry.made,
            row=entry.row,
            model=entry.model,
            run=entry.run,
            note=entry.note,
        )

    # Changing

    def problem(self, name: str, *, but: str | None = None) -> str | None:
        """What is wrong with a name for a direction, or None; `but` is the name that it has now."""
        return name_problem(name, {entry.name for entry in self.entries()} - {but})

    def save(self, found: Direction, name: str, note: str = "") -> Entry:
        """Add a direction under a name. Raises `EngineError` for a name that cannot be, and a disk that refuses."""
        self._check(name)
        name = _writable(name.strip())
        path = self._free(name)
        entry = Entry(
            path,
            name,
            _writable(note.strip()),
            found.width,
            found.model,
            found.run,
            found.row,
            found.made,
            datetime.now(UTC).isoformat(timespec="seconds"),
            found.norm,
        )
        _write(entry, found)
        return entry

    def rename(self, name: str, new: str, note: str | None = None) -> Entry:
        """Give a direction another name, and another note; the files follow the name, comments in them stay."""
        entry = self.entry(name)
        self._check(new, but=entry.name)
        new = _writable(new.strip())
        document = _document(entry.facts) if entry.facts.is_file() else _facts(entry)
        document["name"] = new
        if note is not None:
            document["note"] = _writable(note.strip())
        if not entry.path.is_file() or _stem(new) == _stem(entry.name):
            write_text(entry.facts, tomlkit.dumps(document))
            return _entry(entry.path)
        path = self._free(new)
        # First the new pair, then the old goes: a crash in between leaves two, never none.
        content = entry.path.read_bytes()
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
        write_text(path.with_suffix(".toml"), tomlkit.dumps(document))
        for old in (entry.path, entry.facts):
            with suppress(FileNotFoundError):
                _unlink(old)
        return _entry(path)

    def delete(self, name: str) -> Path:
        """Move a direction to the trash; gives its new place. Raises `EngineError`."""
        entry = self.entry(name)
        trash = self.folder / TRASH
        target = _numbered(trash / entry.path.name)
        try:
            make_folder(trash)
            for old, new in ((entry.path, target), (entry.facts, target.with_suffix(".toml"))):
                if old.exists():
                    old.rename(new)
        except OSError as error:
            raise write_failure(target, error) from error
        return target

    def take_in(self, path: Path, key: str | None = None, name: str | None = None, note: str = "") -> Entry:
        """Add a vector from a file; `key` says which where it holds several. Raises `EngineError`."""
        path = path.expanduser()
        found = chosen(read_vectors(path), path, key)
        # A direction that was exported from here brings along what was known of it.
        known = _entry(path) if path.suffix == ".safetensors" and path.with_suffix(".toml").is_file() else None
        usual = known.name if known else path.stem if found.key in {TENSOR, path.stem} else f"{path.stem} {found.key}"
        name = name or self._free_name(usual)
        of_run = path.name == "directions.safetensors" and (path.parent / "profile.toml").is_file()
        taken = direction(
            name,
            found.vector,
            made=(known.made if known else "") or f"imported from {path.name}, {found.key}",
            row=known.row if known else found.row if of_run else None,
            model=known.model if known else "",
            run=known.run if known else path.parent.name if of_run else "",
        )
        return self.save(taken, name, note or (known.note if known else ""))

    def export(self, name: str, to: Path, *, overwrite: bool = False) -> Path:
        """Write a direction to a file, or into a folder: safetensors with what is known beside it, .npy or .json.

        Raises `EngineError` for another ending, and where a file is in the way.
        """
        entry = self.entry(name)
        found = self.read(entry)
        to = to.expanduser()
        target = to / entry.path.name if to.is_dir() else to
        if target.suffix not in EXPORTED:
            raise EngineError(f"{target.name} has no ending that is known.", f"Take one of {', '.join(EXPORTED)}.")
        if target.exists() and not overwrite:
            raise EngineError(f"{target} is there already.", "Choose another place, or say --overwrite.")
        match target.suffix:
            case ".npy":
                write_atomically(target, lambda temporary: _save_npy(temporary, found), private=False)
            case ".json":
                import json

                text = json.dumps({entry.name: found.vector.tolist()}, ensure_ascii=False) + "\n"
                write_text(target, text, private=False)
            case _:
                copy = Entry(target, *(getattr(entry, field) for field in _FIELDS))
                _write(copy, found, private=False)
        return target

    def _check(self, name: str, *, but: str | None = None) -> None:
        if problem := self.problem(name, but=but):
            raise EngineError(f"A direction cannot be named {name!r}: {problem[0].lower()}{problem[1:]}")

    def _free(self, name: str) -> Path:
        return _numbered(self.folder / f"{_stem(name)}.safetensors")

    def _free_name(self, name: str) -> str:
        free, number = name, 1
        while self.problem(free) and number < 1000:
            number += 1
            free = f"{name} {number}" if not RESERVED.fullmatch(name) else f"imported {name} {number}"
        return free


def name_problem(name: str, taken: Collection[str | None]) -> str | None:
    """What is wrong with a name for a direction beside those that are taken, or None."""
    bare = name.strip()
    if not bare:
        return "Give it a name."
    if "\n" in bare or "\r" in bare:
        return "A name is one line."
    if len(bare) > LONGEST_NAME:
        return f"That is longer than {LONGEST_NAME} characters."
    if RESERVED.fullmatch(bare):
        return f"{bare} means a direction of a run; take another name."
    if _folded(bare) in {_folded(one) for one in taken if one is not None}:
        return "There is a direction of that name already."
    return None


_FIELDS = ("name", "note", "width", "model", "run", "row", "made", "date", "norm")


def chosen(vectors: list[Found], path: Path, key: str | None) -> Found:
    """The vector of a file that is asked for. Raises `EngineError` where it is not there, or not clear which."""
    if key is not None:
        found = next((one for one in vectors if one.key == key), None)
        if found is None:
            raise EngineError(f"{path.name} holds no {key}.", _offered([one.key for one in vectors]))
        return found
    if len(vectors) > 1 and not any(one.key == TENSOR for one in vectors):
        raise EngineError(
            f"{path.name} holds {len(vectors)} vectors.", _offered([one.key for one in vectors], "Say which: ")
        )
    return next((one for one in vectors if one.key == TENSOR), vectors[0])


def _offered(names: list[str], lead: str = "There is ") -> str:
    if not names:
        return "It is empty."
    shown = ", ".join(names[:8])
    return f"{lead}{shown}{f' and {len(names) - 8} more' if len(names) > 8 else ''}."


def _folded(name: str) -> str:
    return name.strip().casefold()


def _writable(text: str) -> str:
    """TOML is UTF-8: half a surrogate pair cannot stand in it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _stem(name: str) -> str:
    """A file name that any file system takes."""
    return file_name(name.casefold(), TENSOR)


def _numbered(path: Path) -> Path:
    """The path, or one with a number behind where it or its facts are there."""
    free, number = path, 1
    while free.exists() or free.with_suffix(".toml").exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _entry(path: Path) -> Entry:
    """What is known of the direction in this file; never raises."""
    facts = path.with_suffix(".toml")
    if not facts.is_file():
        return Entry(path, path.stem, note="", problem="" if path.is_file() else "it is gone")
    try:
        data = _document(facts).unwrap()
    except EngineError as error:
        return Entry(path, path.stem, problem=str(error))
    layer = data.get("layer")
    row = None
    if layer is not None:
        with suppress(EngineError):
            row = row_of(str(layer), 1 << 20)
    return Entry(
        path,
        str(data.get("name") or path.stem),
        str(data.get("note", "")),
        data["width"] if isinstance(data.get("width"), int) else 0,
        str(data.get("model", "")),
        str(data.get("run", "")),
        row,
        str(data.get("made", "")),
        str(data.get("date", "")),
        float(data["norm"]) if isinstance(data.get("norm"), int | float) else 1.0,
        "" if path.is_file() else f"its numbers are gone: {path.name}",
    )


def _document(path: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise EngineError(
            f"{path.name} cannot be read ({reason}).", "Mend that file, or delete the direction."
        ) from error


def _facts(entry: Entry) -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(tomlkit.comment("A direction of the residual stream; its numbers are in the file beside this one."))
    document["name"], document["note"] = entry.name, entry.note
    document["width"] = entry.width
    document["model"], document["run"] = _writable(entry.model), _writable(entry.run)
    if entry.row is not None:
        document["layer"] = layer_name(entry.row)
    document["made"], document["date"], document["norm"] = _writable(entry.made), entry.date, entry.norm
    return document


def _write(entry: Entry, found: Direction, *, private: bool = True) -> None:
    from safetensors.numpy import save_file

    metadata = {key: str(value) for key, value in _facts(entry).unwrap().items()}
    vector = {TENSOR: np.ascontiguousarray(found.vector, dtype=np.float32)}
    write_atomically(entry.path, lambda temporary: save_file(vector, temporary, metadata=metadata), private=private)
    write_text(entry.facts, tomlkit.dumps(_facts(entry)), private=private)


def _save_npy(path: Path, found: Direction) -> None:
    with path.open("wb") as file:
        np.save(file, found.vector)


def _unlink(path: Path) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        raise
    except OSError as error:
        raise write_failure(path, error) from error
