"""Checkpoints on disk and on the hub: what their files say of a model before any weight is loaded."""
