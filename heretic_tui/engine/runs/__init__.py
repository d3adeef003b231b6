"""Runs: their folders on disk, who works on them, and what is said about them while somebody does."""
