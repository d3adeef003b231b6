"""Chat: conversations with candidates, answered as they come, and steering while they are."""
