"""Scorers: what is measured of a model, a file a scorer."""
