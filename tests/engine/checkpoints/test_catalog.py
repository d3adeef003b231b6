"""Finding models: the cache of the hub, folders and GGUF files, and nothing that is none."""

import os
import shutil
import socket

import fake_models as fake
import huggingface_hub.constants
import pytest

from heretic_tui.engine.checkpoints.catalog import cached_models, demo_model, models_below


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and no network."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))

    def refuse(*_):
        raise AssertionError("the catalog asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return folder


def names(place, **options):
    return [entry.path.relative_to(place).as_posix() for entry in models_below(place, **options)]


def test_the_demonstration_model_is_always_there():
    demo = demo_model()
    assert demo.kind == "demo"
    assert (demo.path / "config.json").is_file()
    assert demo.name == str(demo.path)
    assert demo.size > (demo.path / "model.safetensors").stat().st_size


def test_a_cached_model_goes_by_its_id(cache):
    files = fake.model_bytes()
    snapshot = fake.write_cached(cache, "org/small", files)
    (entry,) = cached_models()
    assert (entry.name, entry.kind, entry.path) == ("org/small", "hub", snapshot)
    assert entry.size == sum(map(len, files.values()))


def test_a_cached_gguf_file_goes_by_its_path(cache):
    snapshot = fake.write_cached(
        cache, "org/quantized", {"deep/small.Q4_0.gguf": b"GGUF", "mmproj-small.gguf": b"GGUF"}
    )
    (entry,) = cached_models()
    assert (entry.name, entry.kind) == (str(snapshot / "deep/small.Q4_0.gguf"), "gguf")


def test_data_sets_and_repositories_without_a_model_are_not_listed(cache):
    fake.write_cached(cache, "org/words", {"config.json": b"{}"}, kind="datasets")
    fake.write_cached(cache, "org/tokens", {"tokenizer.json": b"{}"})
    fake.write_cached(cache, "org/nested", {"onnx/config.json": b"{}"})
    assert cached_models() == []


def test_the_commit_of_main_is_taken_before_a_newer_one(cache):
    main = fake.write_cached(cache, "org/small", fake.model_bytes())
    newer = fake.write_cached(cache, "org/small", fake.model_bytes(), commit="f" * 40, ref=None)
    for blob in (newer / "config.json", newer / "model.safetensors"):
        os.utime(blob, (2**31, 2**31))
    assert [entry.path for entry in cached_models()] == [main]


def test_the_newest_model_comes_first(cache):
    old = fake.write_cached(cache, "org/old", fake.model_bytes())
    fake.write_cached(cache, "org/new", fake.model_bytes())
    for file in old.iterdir():
        os.utime(file, (1, 1))
    assert [entry.name for entry in cached_models()] == ["org/new", "org/old"]


def test_a_broken_repository_does_not_hide_the_others(cache):
    fake.write_cached(cache, "org/small", fake.model_bytes())
    broken = fake.write_cached(cache, "org/broken", fake.model_bytes())
    (broken / "config.json").resolve().unlink()
    (cache / "models--org--hollow").mkdir()
    (cache / "stray.txt").write_text("?")
    assert [entry.name for entry in cached_models()] == ["org/small"]


def test_a_missing_cache_is_empty(cache):
    cache.rmdir()
    assert cached_models() == []


def test_a_cache_that_is_a_file_is_empty(cache):
    cache.rmdir()
    cache.write_text("")
    assert cached_models() == []


def test_folders_and_gguf_files_are_found_nearest_first(tmp_path):
    fake.write_model(tmp_path / "b" / "deep" / "model")
    fake.write_model(tmp_path / "a")
    (tmp_path / "z.gguf").write_bytes(b"GGUF")
    assert names(tmp_path) == ["z.gguf", "a", "b/deep/model"]


def test_a_place_that_is_a_model_is_found_itself(tmp_path):
    folder = fake.write_model(tmp_path / "model")
    (entry,) = models_below(folder)
    assert (entry.name, entry.kind) == (str(folder), "folder")
    assert entry.size == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    "weights", ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin"]
)
def test_weights_have_several_names(tmp_path, weights):
    folder = fake.write_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / weights)
    assert names(tmp_path) == ["model"]


def test_a_configuration_without_weights_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert names(tmp_path) == []


def test_parts_of_gguf_files_are_no_models(tmp_path):
    for name in ("m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "mmproj-m.gguf", ".hidden.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert names(tmp_path) == ["m-00001-of-00003.gguf"]


def test_hidden_folders_are_skipped(tmp_path):
    fake.write_model(tmp_path / ".cache" / "model")
    assert names(tmp_path) == []


def test_nothing_deeper_than_asked_is_looked_at(tmp_path):
    fake.write_model(tmp_path / "1" / "2" / "model")
    assert names(tmp_path, depth=2) == []
    assert names(tmp_path, depth=3) == ["1/2/model"]


def test_a_loop_of_links_ends_and_a_model_is_found_once(tmp_path):
    fake.write_model(tmp_path / "model")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "model" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "nowhere.gguf").symlink_to(tmp_path / "missing")
    assert names(tmp_path) == ["model"]


def test_what_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    fake.write_model(tmp_path / "open")
    fake.write_model(tmp_path / "closed")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert names(tmp_path) == ["open"]


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_place_that_is_no_folder_holds_nothing(tmp_path, place):
    (tmp_path / "file").write_text("")
    assert names(tmp_path / place) == []


def test_names_that_no_one_would_choose_are_found(tmp_path):
    for name in (b"new\nline", b"\x1b[31mred", b"\xff\xfe", "ü 模型".encode()):
        fake.write_model(tmp_path / os.fsdecode(name) / "m")
    assert len(names(tmp_path)) == 4


def test_models_come_one_by_one_and_a_folder_that_vanishes_meanwhile_is_no_error(tmp_path):
    for name in ("a", "b/c"):
        fake.write_model(tmp_path / name)
    found = models_below(tmp_path)
    assert next(found).path == tmp_path / "a"
    shutil.rmtree(tmp_path / "b")
    assert list(found) == []
