"""The export screen: where a trial goes, and how it went."""
