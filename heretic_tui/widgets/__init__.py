"""Parts that draw one thing each and know nothing of the engine's insides."""
