"""Loading a model: where its files are found, and that it can be stopped."""

import threading

from tiny_models import result

from heretic_tui.engine.events import Tick
from heretic_tui.engine.loading.loader import load
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.model.sources import find_source
from heretic_tui.profile.schema import Profile


def test_a_gguf_file_behind_a_link_goes_by_the_link_s_own_name(tmp_path):
    """In the hub's cache every file is a link to a blob whose name is a checksum."""
    blob = tmp_path / "blobs" / "0a1b"
    blob.parent.mkdir()
    blob.write_bytes(b"GGUF")
    link = tmp_path / "snapshots" / "small.gguf"
    link.parent.mkdir()
    link.symlink_to(blob)
    source = result(find_source(str(link), Profile()))
    assert (source.folder, source.gguf) == (link.parent, "small.gguf")


def test_loading_can_be_stopped_while_a_chat_template_loops(tiny_folder, monkeypatch):
    asked, released = threading.Event(), threading.Event()

    def loop(*_):
        asked.set()
        assert released.wait(60)

    monkeypatch.setattr(LanguageModel, "template", loop)
    job = load(str(tiny_folder), Profile())
    try:
        assert any(isinstance(event, Tick) and asked.is_set() for event in job)
        job.close()
        assert not released.is_set()
    finally:
        released.set()
