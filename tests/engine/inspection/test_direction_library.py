"""The library of directions: a folder that all runs see, in which nothing is lost and nothing damaged is fatal."""

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.inspection.direction import direction
from heretic_tui.engine.inspection.direction_library import TRASH, DirectionLibrary
from heretic_tui.engine.inspection.vector_files import read_vectors

WILD = [
    "[bold]x[/]", "\x1b[31mred", "right \u202eto left", "宽字符 " * 30, "e\u0301👩‍👩‍👧", "../../etc/passwd",
    "a/b\\c:d*?\"<>|",
    "CON", ".hidden", "-rf", 'quo"te\'s', "x" * 200, "tab\there", "\ud800half", "...", "名", "'''\"\"\"",
    "null\x00byte",
]  # fmt: skip


@pytest.fixture
def library(tmp_path):
    return DirectionLibrary(tmp_path / "directions")


def some(seed=0, width=16, **origin):
    return direction("it", np.random.default_rng(seed).normal(size=width), **origin)


def test_a_saved_direction_is_there_for_all_runs_with_all_that_is_known_of_it(library):
    found = some(row=5, model="org/model", run="run--1", made="difference")
    library.save(found, "mine", "what it does")
    entry = DirectionLibrary(library.folder).entry("mine")
    again = library.load("mine")
    assert np.array_equal(again.vector, found.vector)
    assert (again.row, again.model, again.run, again.made, again.note) == (
        5,
        "org/model",
        "run--1",
        "difference",
        "what it does",
    )
    assert entry.width == 16
    facts = tomllib.loads(entry.facts.read_text(encoding="utf-8"))
    assert facts["layer"] == "4"
    assert facts["date"].startswith("20")
    assert list(load_file(entry.path)) == ["direction"]


@pytest.mark.parametrize("name", WILD)
def test_any_name_can_be_given_and_none_leaves_the_folder(library, name):
    entry = library.save(some(), name, f"note {name}")
    assert entry.path.parent == library.folder
    assert len(entry.path.name.encode()) < 200
    assert library.load(entry.name).note.startswith("note")
    assert not library.entries()[0].problem
    renamed = library.rename(entry.name, f"{name[:150]} again")
    assert renamed.name.endswith("again")
    assert np.array_equal(library.load(renamed.name).vector, some().vector)
    library.delete(renamed.name)
    assert library.entries() == []


def test_names_that_look_the_same_as_files_do_not_collide(library):
    for name in ("a b", "a/b", "a:b", "A-B."):
        library.save(some(len(name)), name)
    assert len(library.entries()) == 4
    assert len({entry.path for entry in library.entries()}) == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "give it a name"),
        ("  ", "give it a name"),
        ("a\nb", "one line"),
        ("y" * 201, "longer than"),
        ("layer 14", "means a direction of a run"),
        ("pc:1:2", "means a direction of a run"),
        ("In", "means a direction of a run"),
        ("TAKEN", "already"),
    ],
)
def test_a_name_that_cannot_be_is_refused(library, name, words):
    library.save(some(), "taken")
    with pytest.raises(EngineError, match=words):
        library.save(some(), name)
    assert len(library.entries()) == 1


def test_renaming_keeps_comments_of_a_file_that_somebody_edited(library):
    entry = library.save(some(), "old")
    entry.facts.write_text("# my own words\n" + entry.facts.read_text() + 'extra = "kept"\n')
    renamed = library.rename("old", "new", "another note")
    text = renamed.facts.read_text()
    assert "# my own words" in text
    assert 'extra = "kept"' in text
    assert not entry.path.exists()
    assert not entry.facts.exists()
    assert library.load("new").note == "another note"
    assert library.rename("new", "NEW").path == renamed.path


def test_what_is_deleted_can_be_had_back(library):
    for _ in range(3):
        library.save(some(), "it")
        library.delete("it")
    trash = library.folder / TRASH
    assert len(list(trash.glob("*.safetensors"))) == len(list(trash.glob("*.toml"))) == 3
    assert library.take_in(min(trash.glob("*.safetensors"))).name == "it"


def test_a_damaged_file_is_said_and_holds_up_no_other(library):
    good = library.save(some(), "good")
    for name in ("cut", "bad facts", "gone"):
        library.save(some(), name)
    library.entry("cut").path.write_bytes(b"\x10\0\0")
    (library.folder / "bad-facts.toml").write_bytes(b"name = \xff")
    library.entry("gone").path.unlink()
    (library.folder / "lonely.safetensors").write_bytes(good.path.read_bytes())
    (library.folder / "notes.md").write_text("not ours")
    named = {entry.name: entry.problem for entry in library.entries()}
    assert set(named) == {"good", "cut", "bad-facts", "gone", "lonely"}
    assert "cannot be read" in named["bad-facts"]
    assert "gone" in named["gone"]
    assert library.load("good").width == library.load("lonely").width == 16
    for name in ("cut", "gone"):
        with pytest.raises(EngineError):
            library.load(name)
    for name in named:
        library.delete(name)
    assert library.entries() == []


def test_strange_values_in_the_facts_are_no_reason_to_fail(library):
    entry = library.save(some(), "it")
    entry.facts.write_text('name = 3\nwidth = "x"\nlayer = [1]\nnorm = "y"\nnote = 1.5\n')
    assert [one.name for one in library.entries()] == ["3"]
    assert library.load("3").width == 16


def test_a_missing_name_says_what_there_is(library):
    with pytest.raises(EngineError, match="It is empty"):
        library.load("x")
    library.save(some(), "one")
    with pytest.raises(EngineError, match="There is one"):
        library.load("x")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions")
def test_a_folder_that_cannot_be_written_to_is_told(library, monkeypatch):
    library.save(some(), "old")

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", refuse)
    with pytest.raises(EngineError, match="the disk is full"):
        library.save(some(), "new")
    assert [entry.name for entry in library.entries()] == ["old"]


# Files from elsewhere


def test_vectors_come_out_of_many_kinds_of_files(tmp_path):
    vector = np.arange(1, 5, dtype=np.float32)
    np.save(tmp_path / "a.npy", vector)
    np.savez(tmp_path / "b.npz", x=vector, y=np.stack([vector, -vector]))
    (tmp_path / "c.json").write_text(json.dumps({"v": vector.tolist(), "note": "x"}))
    (tmp_path / "d.json").write_text(json.dumps(vector.tolist()))
    (tmp_path / "e.txt").write_text("1, 2\n3 4.0\n")
    save_file({"f": vector.reshape(1, 4), "g": vector.astype(np.float16)}, tmp_path / "f.safetensors")
    found = {path.name: read_vectors(path) for path in sorted(tmp_path.iterdir())}
    assert {name: [one.key for one in vectors] for name, vectors in found.items()} == {
        "a.npy": ["a"],
        "b.npz": ["x", "y[0]", "y[1]"],
        "c.json": ["v"],
        "d.json": ["d"],
        "e.txt": ["e"],
        "f.safetensors": ["f", "g"],
    }
    for vectors in found.values():
        np.testing.assert_allclose(np.abs(vectors[0].vector), vector)


def test_bfloat16_is_read_though_numpy_knows_none(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    vector = torch.tensor([1.5, -2.25, 1e20])
    save_torch({"direction": vector.bfloat16()}, tmp_path / "x.safetensors")
    (found,) = read_vectors(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(found.vector, vector.bfloat16().float().numpy())


def test_a_gguf_control_vector_is_read(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "v.gguf", "controlvector")
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", np.full(8, layer, dtype=np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    assert [(one.key, one.vector[0]) for one in read_vectors(tmp_path / "v.gguf")] == [
        ("direction.1", 1),
        ("direction.2", 2),
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pt", b"x", "pickle"),
        ("a.npy", b"not numpy", "cannot be read"),
        ("a.safetensors", b"\xff" * 30, "is damaged"),
        ("a.json", b"{", "cannot be read"),
        ("a.json", b'{"x": "y"}', "holds no vector"),
        ("a.txt", b"one two", "cannot be read"),
        ("a.gguf", b"GGUFx", "cannot be read"),
        ("a.xyz", b"1", "not known"),
        ("missing.npy", None, "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused_in_plain_words(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EngineError, match=words):
        read_vectors(tmp_path / name)


def test_a_pickle_inside_an_array_file_is_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(EngineError, match="cannot be read"):
        read_vectors(tmp_path / "a.npy")


def test_a_runs_own_directions_can_be_taken_in(library, study):
    path = study.path / "directions.safetensors"
    with pytest.raises(EngineError, match="Say which"):
        library.take_in(path)
    entry = library.take_in(path, "vectors[2]", "from a run")
    assert entry.row == 2
    assert entry.run == study.name
    np.testing.assert_allclose(library.load("from a run").vector, load_file(path)["vectors"][2], atol=1e-6)
    with pytest.raises(EngineError, match="holds no vectors"):
        library.take_in(path, "vectors[99]")


@pytest.mark.parametrize("vector", [np.zeros(4), np.array([1.0, np.inf])])
def test_what_points_nowhere_is_not_taken_in(library, tmp_path, vector):
    np.save(tmp_path / "a.npy", vector)
    with pytest.raises(EngineError):
        library.take_in(tmp_path / "a.npy")
    assert library.entries() == []


@pytest.mark.parametrize("ending", [".safetensors", ".npy", ".json"])
def test_what_is_exported_can_be_taken_in_again(library, tmp_path, ending):
    library.save(some(row=3, run="r"), "mine", "a note")
    to = library.export("mine", tmp_path / f"out{ending}")
    with pytest.raises(EngineError, match="is there already"):
        library.export("mine", to)
    library.export("mine", to, overwrite=True)
    entry = library.take_in(to)
    np.testing.assert_allclose(library.load(entry.name).vector, some().vector, atol=1e-7)
    if ending == ".safetensors":
        assert (entry.name, entry.note, entry.row, entry.run) == ("mine 2", "a note", 3, "r")


def test_export_into_a_folder_and_to_an_unknown_ending(library, tmp_path):
    library.save(some(), "mine")
    assert library.export("mine", tmp_path).name == "mine.safetensors"
    with pytest.raises(EngineError, match="no ending that is known"):
        library.export("mine", tmp_path / "x.pt")


def test_the_library_is_in_the_data_folder(monkeypatch, tmp_path):
    from heretic_tui import paths

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert paths.directions_dir() == Path(tmp_path) / "heretic-tui" / "directions"
