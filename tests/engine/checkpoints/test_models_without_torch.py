"""What the list of models needs is imported at once, so nothing heavy may come along."""

import subprocess
import sys

import fake_models as fake

PARTS = ("catalog", "checkpoint", "fit", "headers", "model_files", "model_config", "stored_tensors")
SCRIPT = """
import sys
import heretic_tui.recents
for part in {parts}:
    __import__("heretic_tui.engine.checkpoints." + part)
from heretic_tui.engine.checkpoints.catalog import cached_models
from heretic_tui.engine.checkpoints.checkpoint import read_facts
from heretic_tui.engine.checkpoints.fit import estimate_fit, fit_text
from heretic_tui.engine.memory import read_memory
early = set(sys.modules)
for entry in cached_models():
    print(entry.name, fit_text(estimate_fit(read_facts(entry), 8, 100, read_memory()[-1], four_bit=False)))
    read_facts({gguf!r})
print(*sorted(early & {{"huggingface_hub", "gguf", "numpy"}}), file=sys.stderr)
print(*sorted(set(sys.modules) & {{"torch", "transformers", "textual", "rich", "optuna"}}), file=sys.stderr)
"""


def test_models_are_listed_and_judged_without_torch_or_a_screen(tmp_path, monkeypatch):
    fake.write_cached(tmp_path / "hub", "org/small", fake.model_bytes())
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(fake.gguf_bytes(fake.GGUF_VALUES, fake.GGUF_TENSORS))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    script = SCRIPT.format(parts=PARTS, gguf=str(gguf))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("org/small fits: needs")
    assert done.stderr.split() == []
