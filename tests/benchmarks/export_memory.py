"""Peak memory of a merge of the source's files, of the loaded model and of an outline of it, against a plain save.

The checkpoint, of random weights, is made here.

A third way merges beside a model that was loaded in 4 bits.

    python tests/benchmarks/export_memory.py [gigabytes] [folder]

Each way runs in a process of its own, which loads or outlines the model first; what counts is how far its anonymous
memory (that of the process alone, without mapped files) rises above what was taken before, and its highest resident
memory altogether. Everything written is removed.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

SHARD = "500MB"
WIDTH, VOCABULARY = 2048, 260


def make(folder: Path, size: float) -> None:
    """Write a bfloat16 checkpoint of about `size` bytes in shards."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
    from tiny_models import EOS, PAD, tiny_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    layer = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * 4 * WIDTH)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=round(size / layer),
        num_attention_heads=16,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size=SHARD)
    tiny_tokenizer().save_pretrained(folder)


def status(name: str) -> int:
    """A figure of this process's memory in bytes, such as `VmHWM`, the highest resident memory so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def anonymous() -> int:
    """Bytes of this process's anonymous memory."""
    return status("RssAnon")


class Peak(threading.Thread):
    """The highest anonymous memory seen, looked at 200 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.on = anonymous(), True

    def run(self) -> None:
        """Look until it is told to stop."""
        while self.on:
            self.highest = max(self.highest, anonymous())
            time.sleep(0.005)


def measure(way: str, source: str, target: str) -> None:
    """Export in one way and print the figures as JSON."""
    from heretic_tui.engine.ablation.directions import Directions
    from heretic_tui.engine.events import Verified
    from heretic_tui.engine.export.merged import export_merged
    from heretic_tui.engine.loading.outline import outline
    from heretic_tui.engine.loading.session import Session
    from heretic_tui.engine.parameters import AblationParameters, Kernel
    from heretic_tui.engine.records import ModelFacts, TrialRecord
    from heretic_tui.profile.schema import Profile

    torch.set_num_threads(1)
    profile = Profile(row_normalization="full", quantization="bnb_4bit" if way == "4-bit" else "none")
    count = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    kinds = {"attention": count, "MLP": count}
    facts = ModelFacts("made here", None, "", 0, count, WIDTH, "bfloat16", "cpu", None, {}, kinds)
    empty = anonymous()
    job = outline(facts, source, profile) if way == "outline" else Session().load(source, profile)
    while True:
        try:
            next(job)
        except StopIteration as stop:
            model = stop.value
            break
    if way == "plain":
        model.source = None
    layers = len(model.layers)
    rows = torch.nn.functional.normalize(torch.randn(layers + 1, WIDTH), dim=1)
    kernel = Kernel(1.0, layers / 2, 1.0, float(layers))
    record = TrialRecord(1, AblationParameters(None, {"attn.o_proj": kernel, "mlp.down_proj": kernel}), {}, 1.0)
    before, began = anonymous(), time.perf_counter()
    peak = Peak()
    peak.start()
    events = list(export_merged(model, Directions(torch.zeros_like(rows), rows, rows), record, profile, Path(target)))
    peak.on = False
    (verified,) = (event for event in events if isinstance(event, Verified))
    seconds = time.perf_counter() - began
    memory = {"model": before - empty, "above": peak.highest - before, "resident": status("VmHWM")}
    print(json.dumps(memory | {"seconds": seconds, "changed": verified.changed, "tensors": verified.tensors}))


def main() -> None:
    """Make the checkpoint, measure all ways, remove everything."""
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        make(folder / "source", size * 1e9)
        files = list((folder / "source").glob("*.safetensors"))
        print(f"{len(files)} shards, {sum(file.stat().st_size for file in files) / 1e9:.2f} GB in all, bfloat16")
        for way in ("outline", "merge", "4-bit", "plain"):
            call = [sys.executable, __file__, "--measure", way, str(folder / "source"), str(folder / "out")]
            found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            print(
                f"{way:<7} model {found['model'] / 1e9:5.2f} GB, export {found['above'] / 1e9:5.2f} GB above it, "
                f"peak resident {found['resident'] / 1e9:5.2f} GB, {found['seconds']:.0f} s with verification, "
                f"{found['changed']} of {found['tensors']} tensors changed"
            )
            shutil.rmtree(folder / "out")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main()
