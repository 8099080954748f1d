"""Auditors' tools: rates of what explanations say over transcripts, graders as data, a monitor with a cost bound."""
