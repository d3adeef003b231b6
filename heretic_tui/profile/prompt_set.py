"""Prompt sets: which prompts, where they come from, and what is put around them."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from heretic_tui.profile.fields import Table, refuse, setting

_SLICE = r"\[\s*-?\d*%?\s*:\s*-?\d*%?\s*\]"
_SPLIT = re.compile(rf"(?:[\w.\-/]+(?:{_SLICE})?|{_SLICE})(?:\s*\+\s*[\w.\-/]+(?:{_SLICE})?)*")


def _split(text: str) -> str:
    if not _SPLIT.fullmatch(text):
        refuse('expected a split such as "train", "train[:400]" or "[:400]"')
    return text


Name = Annotated[str, Field(min_length=1)]


class PromptSet(Table):
    """One set of prompts: a data set, the part of it to take, and the text put around every prompt."""

    dataset: str = Field(
        min_length=1,
        description="A data set on the Hugging Face hub, a folder, or a text, JSONL, CSV or Parquet file. "
        "A text file holds a prompt a line.",
    )
    commit: Name | None = setting(None, "Commit of the hub data set, so that a run can be repeated exactly.")
    split: Annotated[str, AfterValidator(_split)] | None = setting(
        None, 'Part of the data set to take, such as "train[:400]"; for a text file "[:400]".'
    )
    column: Name | None = setting(None, "Column that holds the prompts. A text file has none.")
    prefix: str = setting("", "Text put before every prompt; it may span lines.")
    suffix: str = setting("", "Text put after every prompt; it may span lines.")
    system_prompt: str | None = setting(None, "System prompt for this set; without it, the profile's.")
    residual_plot_label: str | None = setting(None, "Name of this set in plots of residual vectors.")
    residual_plot_color: str | None = setting(None, "Color of this set in plots of residual vectors.")
    answer_column: Name | None = setting(None, "Column that holds the expected answers; the accuracy scorer needs it.")


def _alpaca(split: str) -> dict[str, Any]:
    return {"dataset": "mlabonne/harmless_alpaca", "split": split, "column": "text"}


def _behaviors(split: str) -> dict[str, Any]:
    return {"dataset": "mlabonne/harmful_behaviors", "split": split, "column": "text"}


GOOD_TRAIN = _alpaca("train[:400]")
GOOD_TEST = _alpaca("test[:100]")
BAD_TRAIN = _behaviors("train[:400]")
BAD_TEST = _behaviors("test[:100]")
