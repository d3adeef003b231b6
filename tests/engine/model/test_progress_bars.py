import threading

import gguf
import numpy as np
import pytest
from tiny_models import tiny_network
from transformers.utils import logging as transformers_logging

from heretic_tui.engine.model.progress_bars import bars_made_by, reported


def told(seen):
    def bar(factory, args, options):
        return reported(factory, args, options, lambda *told: seen.append(told))

    return bar


def test_a_bar_of_the_library_becomes_what_it_tells(capfd):
    seen = []
    with bars_made_by(told(seen)):
        assert list(transformers_logging.tqdm(["a", "b"], desc="Loading")) == ["a", "b"]
        assert list(transformers_logging.tqdm(iterable=[])) == []
    assert seen == [(1, 2, "a"), (2, 2, "b")]
    assert capfd.readouterr() == ("", "")


def test_the_reader_of_gguf_files_shows_nothing_either(tmp_path, capfd):
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    seen = []
    with bars_made_by(told(seen)):
        load_gguf_checkpoint(tmp_path / "model.gguf", return_tensors=True, model_to_load=tiny_network("llama"))
    assert [(done, total, item[0]) for done, total, item in seen] == [(1, 1, "token_embd.weight")]
    assert "de-quantizing" not in "".join(capfd.readouterr())


def test_what_was_before_comes_back_even_after_an_error():
    before = transformers_logging.set_tqdm_hook(None)
    level = transformers_logging.get_verbosity()
    with pytest.raises(ValueError, match="boom"), bars_made_by(told([])):
        raise ValueError("boom")
    assert transformers_logging.set_tqdm_hook(before) is None
    assert transformers_logging.get_verbosity() == level


def test_a_second_thread_waits_for_the_first():
    inside, order = threading.Event(), []

    def second():
        inside.wait(10)
        with bars_made_by(told([])):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with bars_made_by(told([])):
        inside.set()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
