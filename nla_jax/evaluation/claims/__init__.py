"""What explanations claim, whether it is true, and how far each claim can be trusted."""
