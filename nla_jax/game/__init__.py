"""The auditing game: an auditor looks for what is hidden in a model whose truth is known."""
