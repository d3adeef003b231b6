"""Prompt sets: hub data sets, data sets on disk, and text, JSONL, CSV and Parquet files."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heretic_tui.engine.background import Job, in_background
from heretic_tui.engine.errors import EngineError
from heretic_tui.engine.model.language_model import LanguageModel
from heretic_tui.engine.prompts.data_set_folders import check_data_set
from heretic_tui.engine.prompts.prompt_sets import describe
from heretic_tui.profile.schema import PromptSet

DEMO_SCHEME = "demo:"
BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as the user role says it, its system prompt, and the known answer if there is one."""

    text: str
    system_prompt: str
    answer: str | None = None


def load_prompts(prompt_set: PromptSet, default_system_prompt: str) -> Job[list[Prompt]]:
    """Read a prompt set, apply its slice, prefix, suffix and system prompt.

    Raises `EngineError` where the source is not there, cannot be read, lacks the column or holds no prompt.
    """
    rows = yield from in_background(lambda _: _rows(prompt_set))
    system = default_system_prompt if prompt_set.system_prompt is None else prompt_set.system_prompt
    prompts = [
        Prompt(f"{prompt_set.prefix}{text}{prompt_set.suffix}", system, answer) for text, answer in rows if text.strip()
    ]
    if not prompts:
        raise EngineError(
            f"The prompt set {describe(prompt_set)} holds no prompt.", "Check the file, split and column."
        )
    return prompts


def check_lengths(model: LanguageModel, prompts: Sequence[Prompt], name: str, max_tokens: int) -> None:
    """Raise `EngineError` for the first prompt that leaves no room for a response in the model's context."""
    limit = model.facts.context_length
    if limit is None:
        return
    texts = [model.template(prompt.text, prompt.system_prompt) for prompt in prompts]
    for number, ids in enumerate(model.tokenizer(texts, add_special_tokens=False)["input_ids"], start=1):
        if len(ids) + max_tokens > limit:
            raise EngineError(
                f"Prompt {number} of {name} is {len(ids)} tokens long; with a response of {max_tokens} tokens it does "
                f"not fit the model's context of {limit} tokens.",
                "Shorten or remove the prompt, or lower max_response_length.",
            )


def _rows(prompt_set: PromptSet) -> list[tuple[str, str | None]]:
    path = _local_path(prompt_set.dataset)
    if path is not None and path.is_file() and path.suffix not in BUILDERS:
        return [(line, None) for line in _sliced(_text_lines(path), prompt_set.split, str(path))]
    table = _table(prompt_set, path)
    text = _column(table, prompt_set.column or "text", prompt_set)
    asked = prompt_set.answer_column
    answers = _column(table, asked, prompt_set, "answer_column") if asked else [None] * len(text)
    return [
        ("" if prompt is None else str(prompt), None if answer is None else str(answer))
        for prompt, answer in zip(text, answers, strict=True)
    ]


def _local_path(dataset: str) -> Path | None:
    if dataset.startswith(DEMO_SCHEME):
        from heretic_tui.demo import PROMPTS_DIR

        embedded = PROMPTS_DIR / f"{dataset.removeprefix(DEMO_SCHEME)}.jsonl"
        if not embedded.is_file():
            known = ", ".join(sorted(f"{DEMO_SCHEME}{file.stem}" for file in PROMPTS_DIR.glob("*.jsonl")))
            raise EngineError(f"There is no embedded prompt set {dataset}.", f"Take one of {known}.")
        return embedded
    path = Path(dataset).expanduser()
    if path.exists():
        return path
    if path.is_absolute() or dataset.startswith(("./", "../", "~")) or path.suffix in {".txt", *BUILDERS}:
        raise EngineError(f"There is no prompt file or folder {dataset}.", "Check the path in the profile.")
    return None


def _text_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{path}") from error
    except OSError as error:
        raise EngineError(
            f"The prompt file {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    # Not `splitlines`, which also splits at form feeds and other characters that a prompt may hold.
    return [line.strip() for line in re.split(r"\r\n?|\n", text) if line.strip()]


def _sliced(rows: list[str], split: str | None, name: str) -> list[str]:
    """Apply a slice such as `[:50]`, `[10:20]`, `[50%:]` or `train[:400]` to the lines of a text file."""
    if not split:
        return rows
    match = re.fullmatch(r"\s*\w*\s*(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?\s*", split)
    if not match:
        raise EngineError(f"{split!r} is not a slice of {name}.", "Write it like [:50] or [10:20].")
    start, end = (_bound(bound, len(rows)) for bound in match.groups())
    return rows[start:end]


def _bound(bound: str | None, count: int) -> int | None:
    if bound is None:
        return None
    return round(int(bound[:-1]) * count / 100) if bound.endswith("%") else int(bound)


def _table(prompt_set: PromptSet, path: Path | None) -> Any:
    """The slice of the data set as a table of the `datasets` library."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.utils import logging as hub_logging
    from pyarrow import ArrowException

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(logging.ERROR)
    hub_logging.set_verbosity(logging.ERROR)  # its retries are not for the terminal
    name, split = describe(prompt_set), (prompt_set.split or "train").strip()
    split = f"train{split}" if split.startswith("[") else split
    try:
        if path is None:
            return datasets.load_dataset(prompt_set.dataset, split=split, revision=prompt_set.commit)
        if path.is_file():
            if path.stat().st_size == 0:
                return datasets.Dataset.from_dict({prompt_set.column or "text": []})
            return datasets.load_dataset(BUILDERS[path.suffix], data_files=str(path), split=split, cache_dir=None)
        check_data_set(path)
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return _saved_table(path, split)
        return datasets.load_dataset(str(path), split=split)
    except DatasetNotFoundError as error:
        raise EngineError(
            f"The data set {name} was not found.", "Check its name, or log in if it is private."
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise EngineError(
            f"The data set {name} is not in the local cache, and the hub could not be reached.",
            "Check the network connection, or give a file of prompts.",
        ) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(name) from error
    except (ArrowException, ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, UnicodeDecodeError):
            raise _not_utf8(name) from error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")
        raise EngineError(
            f"The prompt set {name} cannot be read: {reason}.", "Check the file, split and format."
        ) from error


def _not_utf8(name: str) -> EngineError:
    return EngineError(f"The prompt file {name} is not UTF-8.", "Convert it, for instance with iconv.")


def _saved_table(path: Path, split: str) -> Any:
    """A data set written with `save_to_disk`; the slice is applied here, since loading from disk takes none."""
    import datasets

    saved = datasets.load_from_disk(str(path))
    base = split.partition("[")[0].strip()
    if isinstance(saved, datasets.DatasetDict) and base not in saved:
        raise EngineError(f"The data set {path} has no split {base!r}; it has {', '.join(saved)}.", "Set `split`.")
    table = saved[base] if isinstance(saved, datasets.DatasetDict) else saved
    return table.select(_sliced(list(range(len(table))), split, str(path)))  # type: ignore[arg-type]


def _column(table: Any, column: str, prompt_set: PromptSet, setting: str = "column") -> list[Any]:
    if column not in table.column_names:
        raise EngineError(
            f"The prompt set {describe(prompt_set)} has no column {column!r}; it has {', '.join(table.column_names)}.",
            f"Set `{setting}` to one of these.",
        )
    try:
        return list(table[column])
    except UnicodeDecodeError as error:  # JSON is not checked while it is read
        raise _not_utf8(describe(prompt_set)) from error
