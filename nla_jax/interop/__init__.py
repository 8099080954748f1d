"""Formats that other tools write and read: GGUF, Hugging Face directories, sidecars."""
