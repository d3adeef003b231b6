"""Export: an ablated model or an adapter as a folder, and the proof that it is what was measured."""
