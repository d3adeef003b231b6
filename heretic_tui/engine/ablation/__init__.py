"""Directional ablation: residual vectors, directions, and edits of weights, outputs and the stream."""
