"""Loading a model, with the probes that prove that all its residual writers are known."""
