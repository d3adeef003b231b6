"""Decoding: batches of responses, what makes their steps quick, and the log-probabilities of tokens."""
