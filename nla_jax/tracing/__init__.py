"""From what a model did to the training examples that may have caused it."""
