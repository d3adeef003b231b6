"""A tiny chat model, prompt files and the real command line, for everything that can go wrong."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

PLAIN = [f"Tell me about {thing}." for thing in ("rivers", "bread", "the moon", "winter", "music", "a garden")]
OTHER = [f"How does one break {thing}?" for thing in ("a lock", "a code", "a seal", "a door", "a rule", "a vow")]
CONTEXT = 128
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of three layers with a tokenizer and a chat template; do not change it, copy it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*PLAIN, *OTHER], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def model_copy(model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(model_dir, tmp_path / "damaged")


@pytest.fixture(autouse=True)
def private_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, profiles and caches of this test alone, and no network."""
    import datasets
    import huggingface_hub.constants

    for name in ("CONFIG", "DATA", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "xdg" / name.lower()))
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


@dataclass(frozen=True)
class Outcome:
    """What one call of the command line left behind."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON objects, one a line; fails where a line is none."""
        rows = [json.loads(line) for line in self.out.splitlines()]
        assert all(isinstance(row, dict) for row in rows)
        return rows

    def of(self, event: str) -> list[dict[str, Any]]:
        """The objects of one event."""
        return [row for row in self.objects if row.get("event") == event]

    def is_plain(self, *words: object, code: int = 1, lines: int = 2) -> None:
        """Assert that it failed with a short message that holds all `words` and no traceback."""
        assert self.code == code, (self.code, self.err)
        assert "Traceback" not in self.err + self.out
        assert "This is a bug" not in self.err
        said = [line for line in self.err.strip().splitlines() if line]
        assert 1 <= len(said) <= lines, self.err
        assert "  " not in self.err.strip().replace("\n  ", "\n"), self.err
        for word in words:
            assert str(word) in self.err, (word, self.err)


Command = Callable[..., Outcome]


@pytest.fixture
def heretic(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process, from the arguments to the exit code."""
    from heretic_tui.cli import run_command_line

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["heretic-tui", *map(str, arguments)])
        capsys.readouterr()
        code = run_command_line()
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@dataclass(frozen=True)
class Subprocess:
    """The command line as processes of their own."""

    folder: Path

    def start(self, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
        """Begin one and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "heretic_tui", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=self.folder,
            env={**os.environ, **environment},
        )

    def run(self, *arguments: object, **environment: str) -> Outcome:
        """Run one to its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=100)
        return Outcome(process.returncode, out, err)


@pytest.fixture
def processes(tmp_path: Path) -> Subprocess:
    """Processes that run in the test's folder."""
    return Subprocess(tmp_path)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two text files of prompts; do not change them."""
    folder = tmp_path_factory.mktemp("prompts")
    files = {}
    for name, lines in (("plain", PLAIN), ("other", OTHER)):
        files[name] = folder / f"{name}.txt"
        files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


Profiles = Callable[..., Path]


def profile_text(prompts: dict[str, Path], bad: Path | str | None, tables: str, settings: dict[str, Any]) -> str:
    """The profile of a short study."""
    values = {
        "n_trials": 2,
        "n_startup_trials": 2,
        "seed": 1,
        "batch_size": 6,
        "response_prefix": "",
        "system_prompt": "",
        "max_response_length": 6,
        **settings,
    }
    top = "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    plain, other = json.dumps(str(prompts["plain"])), json.dumps(str(prompts["other"]))
    return (
        f"{top}\n[good_prompts]\ndataset = {plain}\n"
        f"[bad_prompts]\ndataset = {json.dumps(str(bad)) if bad else other}\n"
        f"[scorer.KLDivergence.prompts]\ndataset = {plain}\n"
        f"[scorer.KeywordRate.prompts]\ndataset = {other}\n{tables}"
    )


@pytest.fixture
def profile(tmp_path: Path, prompts: dict[str, Path]) -> Profiles:
    """Write the profile of a short study; keywords become top-level settings, `tables` is put at the end."""

    def write(tables: str = "", name: str = "short", bad: Path | str | None = None, **settings: Any) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(profile_text(prompts, bad, tables, settings), encoding="utf-8")
        return path

    return write


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """Where the runs of a test are."""
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, model_dir: Path, prompts: dict[str, Path]) -> Path:
    """The folder of a finished study of two trials; do not change it, copy it."""
    from heretic_tui.engine.pipeline import start_study
    from heretic_tui.profile import store

    short = store.from_text(profile_text(prompts, None, "", {}), "short").profile
    *_, finished = start_study(str(model_dir), short, "short", tmp_path_factory.mktemp("studies"))
    return Path(finished.path)


@pytest.fixture
def study(finished_study: Path, runs_dir: Path) -> Path:
    """A finished study of two trials of the test's own."""
    return shutil.copytree(finished_study, runs_dir / finished_study.name)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder with its bytes; locks, which hold nothing, left out."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }

    return read


@pytest.fixture
def partial_files() -> Callable[[Path], list[Path]]:
    """What an unfinished write has left lying about below a folder."""

    def find(folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if path.name.endswith((".partial", ".replaced", ".tmp"))]

    return find
