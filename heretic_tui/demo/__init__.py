"""The embedded demonstration model and its prompt sets."""

from pathlib import Path
from typing import Final

DEMO_DIR: Final = Path(__file__).resolve().parent
MODEL_DIR: Final = DEMO_DIR / "demo-llama"
PROMPTS_DIR: Final = DEMO_DIR / "prompts"
