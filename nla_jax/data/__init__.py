"""Corpus, positions, the activation store, explanations and the loader: everything that touches data files."""
