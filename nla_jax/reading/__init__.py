"""Reading with a pair: what is read, at which tokens, and what was found there."""
