"""Baselines: answers from training data or from the context, without an AV. One module each."""
