"""heretic-tui: directional ablation of language models in the terminal."""

__version__ = "0.1.0"
