"""A study: what it starts from, its trials, its workers, and what may be taken from an earlier one."""
