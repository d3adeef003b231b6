"""The inspector: the residual stream, layer by layer, in several views."""
