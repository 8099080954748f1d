"""What a run would need on machines that are not here: its programs, compiled ahead of time and measured on paper."""
