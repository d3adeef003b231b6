"""Profiles: every setting once, and how they are kept as files."""
