"""The one exception that a person is meant to read: what was given, what was expected, what to do."""


class NLAError(Exception):
  """A mistake that the caller can mend. `nla` prints its message as one line and exits with status 2."""
