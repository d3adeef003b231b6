from tiny_models import result

from heretic_tui.engine.loading import find_source
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
