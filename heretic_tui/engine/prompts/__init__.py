"""Prompts: where they come from, what names them, and how the model sees them."""
