"""Full and read-only disks: every write of a study and of an export fails once, and nothing is lost."""

import builtins
import errno
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

FULL = OSError(errno.ENOSPC, "No space left on device")
READ_ONLY = OSError(errno.EROFS, "Read-only file system")
SAID = {errno.ENOSPC: "the disk is full", errno.EROFS: "the file system is read-only"}


def final_name(path: object) -> str:
    """The name that a temporary file is to have in the end."""
    return re.sub(r"^\.(.+)\.\d+(?:-\w+)?\.partial$", r"\1", Path(str(path)).name)


class Disk:
    """A disk that refuses one file: `write` stops halfway, `fsync` and `replace` fail after a whole write."""

    def __init__(self, patch: pytest.MonkeyPatch, times: int) -> None:
        self.patch, self.times = patch, times
        self.refusals = 0

    def refuse(self, name: str, error: OSError, step: str = "write") -> None:
        getattr(self, f"_{step}")(name, error)

    def _fail(self, error: OSError) -> None:
        self.refusals += 1
        raise OSError(error.errno, error.strerror)

    def _write(self, name: str, error: OSError) -> None:
        import safetensors.numpy
        import safetensors.torch
        from safetensors import SafetensorError

        write_text, torch_save = Path.write_text, safetensors.torch.save_file

        def half_text(path: Path, text: str, **options: str) -> int:
            if final_name(path) != name:
                return write_text(path, text, **options)
            write_text(path, text[: len(text) // 2], **options)
            return self._fail(error)

        def half_file(save: Callable[..., None], tensors: object, path: Path, *more: object, **options: object) -> None:
            if final_name(path) != name:
                save(tensors, path, *more, **options)
                return
            Path(path).write_bytes(b"\0" * 100)
            self.refusals += 1
            raise SafetensorError(f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})")

        opened = Path.open

        def half_opened(path: Path, mode: str = "r", **options: object):
            found = opened(path, mode, **options)
            return Half(found, lambda: self._fail(error)) if final_name(path) == name and mode == "wb" else found

        self.patch.setattr(Path, "write_text", half_text)
        self.patch.setattr(Path, "open", half_opened)
        for library in (safetensors.torch, safetensors.numpy):
            self.patch.setattr(library, "save_file", partial(half_file, library.save_file))
        self.patch.setattr("transformers.modeling_utils.safe_save_file", partial(half_file, torch_save))

    def _fsync(self, name: str, error: OSError) -> None:
        fsync, opened = os.fsync, Path.open
        watched: set[int] = set()

        def open_watched(path: Path, *more: object, **options: object):
            file = opened(path, *more, **options)
            if final_name(path) == name:
                watched.add(file.fileno())
            return file

        def fail(number: int) -> None:
            if number in watched:
                watched.discard(number)
                self._fail(error)
            fsync(number)

        self.patch.setattr(Path, "open", open_watched)
        self.patch.setattr(os, "fsync", fail)

    def _replace(self, name: str, error: OSError) -> None:
        replace, rename = Path.replace, Path.rename
        self.patch.setattr(Path, "replace", lambda path, to: self._unless(name, to, error) or replace(path, to))
        self.patch.setattr(Path, "rename", lambda path, to: self._unless(name, to, error) or rename(path, to))

    def _unless(self, name: str, to: object, error: OSError) -> None:
        if Path(str(to)).name == name and self.refusals < self.times:
            self._fail(error)

    def _mkdir(self, name: str, error: OSError) -> None:
        mkdir = Path.mkdir
        self.patch.setattr(
            Path,
            "mkdir",
            lambda path, *more, **options: self._unless(name, final_name(path), error) or mkdir(path, *more, **options),
        )

    def _append(self, name: str, error: OSError) -> None:
        """Opening the file to append to it works, and writing stops in the middle."""
        opened = builtins.open

        def open_append(file: object, mode: str = "r", *more: object, **options: object):
            found = opened(file, mode, *more, **options)
            if Path(str(file)).name == name and "a" in mode:
                return Half(found, lambda: self._fail(error))
            return found

        self.patch.setattr(Path, "open", lambda path, mode="r", **options: open_append(path, mode, **options))


class Half:
    """An open file that takes half of what is written to it."""

    def __init__(self, file: object, fail: Callable[[], None]) -> None:
        self.file, self.fail = file, fail

    def __enter__(self) -> "Half":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def close(self) -> None:
        self.file.close()

    def write(self, text: str | bytes) -> None:
        self.file.write(text[: len(text) // 2])
        self.file.flush()
        self.fail()


@pytest.fixture
def disk() -> Iterator[Callable[[], object]]:
    """A context in which a disk refuses a file."""

    @contextmanager
    def broken(name: str, error: OSError, step: str = "write", times: int = 1000) -> Iterator[Disk]:
        with pytest.MonkeyPatch.context() as patch:
            found = Disk(patch, times)
            found.refuse(name, error, step)
            yield found

    return broken


WRITES = [
    ("model.json", "write"),
    ("model.json", "fsync"),
    ("model.json", "replace"),
    ("residuals.safetensors", "write"),
    ("directions.safetensors", "write"),
    ("directions.safetensors", "fsync"),
    ("directions.safetensors", "replace"),
    ("responses", "mkdir"),
    ("trial-0000.jsonl", "write"),
    ("baseline.safetensors", "write"),
    ("baseline.json", "write"),
    ("baseline.json", "replace"),
    ("trial-0001.jsonl", "write"),
    ("trial-0002.jsonl", "replace"),
    ("study.journal", "append"),
    ("log.txt", "append"),
]


@pytest.mark.parametrize(
    ("name", "step", "error"), [(*write, (FULL, READ_ONLY)[turn % 2]) for turn, write in enumerate(WRITES)]
)
def test_a_study_that_cannot_write(
    heretic, model_dir, profile, runs_dir, disk, partial_files, contents, name, step, error
):
    with disk(name, error, step) as broken:
        outcome = heretic("run", model_dir, "--profile", profile(save_residuals=True), "--runs-dir", runs_dir)
    assert broken.refusals
    outcome.is_plain(name if step != "mkdir" else "trial-0000", SAID[error.errno], "unchanged")
    (run,) = runs_dir.iterdir()
    assert not partial_files(runs_dir)
    left = contents(run)
    if step not in {"append", "mkdir"}:
        assert name not in {Path(found).name for found in left}
    assert heretic("trials", run).code == 0
    resumed = heretic("run", "--resume", run, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.of("study_finished")[0]["trials"] == 2
    assert not [note for note in resumed.of("note") if "journal" in note["text"]]
    for kept, content in left.items():
        assert (run / kept).read_bytes().startswith(content) or Path(kept).name in {"log.txt", name}, kept


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_run_whose_profile_cannot_be_written_leaves_no_folder(
    heretic, model_dir, profile, study, disk, step, contents
):
    before = contents(study.parent)
    with disk("profile.toml", FULL, step):
        outcome = heretic("run", model_dir, "--profile", profile(), "--runs-dir", study.parent)
    outcome.is_plain("profile.toml", "the disk is full", "Free some space")
    assert contents(study.parent) == before
    assert [run.name for run in study.parent.iterdir()] == [study.name]


@pytest.mark.parametrize("folder", ["runs", "tiny--short--1"])
def test_a_run_whose_folder_cannot_be_made(heretic, model_dir, profile, runs_dir, disk, folder):
    with disk(folder, READ_ONLY, "mkdir"):
        outcome = heretic("run", model_dir, "--profile", profile(), "--runs-dir", runs_dir)
    outcome.is_plain(runs_dir, "read-only", "Choose a place")
    assert not list(runs_dir.glob("*"))


@pytest.mark.parametrize("name", ["study.journal", "trial-0003.jsonl", "log.txt"])
@pytest.mark.parametrize("error", [FULL, READ_ONLY], ids=["full", "read-only"])
def test_a_finished_study_is_not_harmed_by_a_resumption_that_cannot_write(heretic, study, disk, contents, name, error):
    before = contents(study)
    step = "write" if name.startswith("trial") else "append"
    with disk(name, error, step) as broken:
        outcome = heretic("run", "--resume", study, "--trials", 3)
    assert broken.refusals
    outcome.is_plain(name, SAID[error.errno])
    after = contents(study)
    for kept, content in before.items():
        assert after[kept].startswith(content)
    resumed = heretic("run", "--resume", study, "--trials", 4, "--json")
    assert resumed.code == 0
    assert resumed.of("study_finished")[0]["trials"] == 4
    assert [row["trial"] for row in heretic("trials", study, "--json").objects] == [1, 2, 3, 4]


@pytest.mark.parametrize("call", range(1, 12))
def test_every_append_to_the_journal_may_fail_once(heretic, study, call):
    opened, calls = Path.open, 0

    def open_append(path: Path, mode: str = "r", **options: object):
        nonlocal calls
        found = opened(path, mode, **options)
        if mode != "ab" or path.name != "study.journal":
            return found
        calls += 1

        def fail() -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        return Half(found, fail) if calls == call else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_append)
        outcome = heretic("run", "--resume", study, "--trials", 3)
    assert calls >= call
    outcome.is_plain("study.journal", "the disk is full")
    assert heretic("trials", study).code == 0
    resumed = heretic("run", "--resume", study, "--trials", 3, "--json")
    assert resumed.code == 0, resumed.err
    assert [row["trial"] for row in heretic("trials", study, "--json").objects] == [1, 2, 3]


def test_a_lock_that_cannot_be_made(heretic, study, monkeypatch, contents):
    before, opened = contents(study), os.open

    def refuse(path: object, flags: int, *more: object, **options: object) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(study)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        heretic("run", "--resume", study, "--trials", 3).is_plain(study, "read-only")
        assert heretic("trials", study).code == 0
        assert heretic("runs", "--runs-dir", study.parent).code == 0
    assert contents(study) == before


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The operating system refuses to let any file of this process grow beyond `size`: EFBIG, from real writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [500, 1200, 1600, 4000, 9000])
def test_a_study_under_a_real_limit(heretic, model_dir, profile, runs_dir, partial_files, size):
    written = profile()
    with files_no_larger_than(size):
        outcome = heretic("run", model_dir, "--profile", written, "--runs-dir", runs_dir)
    outcome.is_plain(runs_dir, "larger than is allowed", "unchanged")
    assert not partial_files(runs_dir)
    for run in runs_dir.iterdir():
        assert heretic("trials", run).code == 0
        resumed = heretic("run", "--resume", run, "--json")
        assert resumed.code == 0, resumed.err
        assert resumed.of("study_finished")[0]["trials"] == 2


def old_export(target: Path) -> None:
    target.mkdir()
    (target / "old.txt").write_text("old")


@pytest.mark.parametrize(
    ("form", "size"),
    [("merged", 100), ("merged", 1000), ("merged", 9000), ("merged", 60_000), ("adapter", 100), ("adapter", 3000)],
)
def test_an_export_under_a_real_limit(heretic, study, tmp_path, partial_files, contents, form, size):
    target = tmp_path / "out"
    old_export(target)
    options = ["--adapter"] if form == "adapter" else []
    with files_no_larger_than(size):
        outcome = heretic("export", study, "--trial", 1, "--to", target, "--overwrite", *options)
    outcome.is_plain(target, "larger than is allowed", "unchanged")
    assert contents(target) == {"old.txt": b"old"}
    assert not partial_files(tmp_path)
    assert heretic("export", study, "--trial", 1, "--to", target, "--overwrite", *options).code == 0
    assert not (target / "old.txt").exists()


@pytest.mark.parametrize(
    ("form", "name", "step", "error"),
    [
        ("merged", "model.safetensors", "write", FULL),
        ("merged", "README.md", "write", READ_ONLY),
        ("merged", "out", "mkdir", READ_ONLY),
        ("merged", "out", "replace", FULL),
        ("adapter", "adapter_model.safetensors", "write", READ_ONLY),
        ("adapter", "README.md", "write", FULL),
        ("adapter", "out", "mkdir", FULL),
    ],
)
@pytest.mark.parametrize("existing", [True, False], ids=["over", "new"])
def test_an_export_that_cannot_write(
    heretic, study, disk, tmp_path, partial_files, contents, form, name, step, error, existing
):
    target = tmp_path / "out"
    options = ["--adapter"] if form == "adapter" else []
    if existing:
        old_export(target)
        options.append("--overwrite")
    with disk(name, error, step, times=1) as broken:
        outcome = heretic("export", study, "--trial", 1, "--to", target, *options)
    assert broken.refusals
    outcome.is_plain(target, SAID[error.errno], "unchanged")
    assert (contents(target) == {"old.txt": b"old"}) if existing else not target.exists()
    assert not partial_files(tmp_path)
    assert heretic("export", study, "--trial", 1, "--to", target, *options).code == 0


def test_an_export_that_cannot_even_put_the_old_folder_back_says_where_it_is(heretic, study, disk, tmp_path, contents):
    target = tmp_path / "out"
    old_export(target)
    with disk("out", READ_ONLY, "replace"):
        outcome = heretic("export", study, "--trial", 1, "--to", target, "--overwrite")
    (kept,) = tmp_path.glob(".out.*.replaced")
    outcome.is_plain(target, kept, "Rename it back")
    assert contents(kept) == {"old.txt": b"old"}


def test_an_export_that_has_no_room_says_so_before_it_loads_the_model(heretic, study, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    outcome = heretic("export", study, "--trial", 1, "--to", tmp_path / "out")
    outcome.is_plain("needs", "free", "Free some space")
    assert "LlamaForCausalLM" not in outcome.out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    ) if shutil.which("mount") else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip("only root can mount a file system; the limits above stand for it")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_really_full_disk(heretic, model_dir, profile, small_disk, partial_files):
    runs, ballast = small_disk / "runs", small_disk / "ballast"
    for free in (4096 * pages for pages in (0, 1, 2, 4, 6, 8)):
        ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - free))
        outcome = heretic("run", model_dir, "--profile", profile(n_trials=3), "--runs-dir", runs)
        outcome.is_plain("the disk is full", runs)
        assert not partial_files(runs)
        ballast.unlink()
    for run in list(runs.iterdir()):
        assert heretic("run", "--resume", run).code == 0
        assert len(heretic("trials", run, "--json").objects) == 3


def test_an_export_to_a_really_full_disk(heretic, study, small_disk, contents, partial_files):
    target = small_disk / "out"
    old_export(target)
    (small_disk / "ballast").write_bytes(b"\0" * 900_000)
    with pytest.MonkeyPatch.context() as patch:  # as if another program took the room meanwhile
        patch.setattr("heretic_tui.engine.pipeline.check_target", lambda *_, **__: None)
        patch.setattr("heretic_tui.engine.export.merged.check_room", lambda *_: None)
        outcome = heretic("export", study, "--trial", 1, "--to", target, "--overwrite")
    outcome.is_plain(target, "the disk is full")
    assert contents(target) == {"old.txt": b"old"}
    assert not partial_files(small_disk)


def test_a_really_read_only_disk(heretic, model_dir, profile, study, small_disk, contents):
    run = shutil.copytree(study, small_disk / study.name)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    before = contents(run)
    heretic("run", "--resume", run, "--trials", 3).is_plain(run, "read-only")
    heretic("run", model_dir, "--profile", profile(), "--runs-dir", small_disk).is_plain(small_disk, "read-only")
    heretic("export", run, "--trial", 1, "--to", small_disk / "out").is_plain(small_disk, "read-only")
    assert len(heretic("trials", run, "--json").objects) == 2
    assert contents(run) == before


def test_a_new_profile_on_a_full_disk(heretic):
    from heretic_tui import paths

    with files_no_larger_than(100):
        outcome = heretic("profiles", "new", "mine")
    outcome.is_plain("mine", "too large", code=2)
    assert not list(paths.profiles_dir().iterdir())
