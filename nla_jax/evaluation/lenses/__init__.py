"""Lenses: an affine map of an activation, then the target's own output layer. No AV takes part."""
