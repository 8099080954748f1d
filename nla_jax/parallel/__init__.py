"""Who holds which part of an array, and how several devices and processes act as one."""
