"""Parts for Inspect and Scout: a tool, a model provider, a scanner, the agent of the auditing game. Extra `inspect`."""
