"""A model in memory: its network, tokenizer, and every weight that writes into the residual stream."""
