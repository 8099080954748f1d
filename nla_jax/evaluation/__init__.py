"""What an explanation is worth: FVE and its interval, controls, suites, and the report a person opens."""
