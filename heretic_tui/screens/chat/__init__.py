"""The chat screen: talks with one candidate or two."""
