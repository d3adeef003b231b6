"""What the inspector shows: the residual stream of two prompt sets, measured layer by layer.

Everything here that reads a run's folder works in NumPy and loads no torch, so that a run opens at once.
"""
