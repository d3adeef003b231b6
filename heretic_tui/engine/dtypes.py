"""Data types by name: what their values weigh, known without torch."""

from heretic_tui.engine.records import ModelFacts

EXPORT_DTYPES = ("float16", "bfloat16", "float32")
"""What an export can be cast to."""
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def export_size(facts: ModelFacts, dtype: str | None) -> int:
    """Bytes that a model's weights take on disk in `dtype`, or as they were loaded; tokenizer and cards not counted."""
    return facts.parameters * _BYTES.get(dtype or facts.dtype, 2)
