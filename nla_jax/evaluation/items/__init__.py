"""Items that suites ask about: drawn from held-out documents, or written from templates with a seed."""
