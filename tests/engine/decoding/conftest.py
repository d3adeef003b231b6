"""For `by_the_library`: with importlib's import mode pytest adds no folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
