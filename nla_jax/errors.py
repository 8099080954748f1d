"""The one exception that a person is meant to read: what was given, what was expected, what to do."""


class NLAError(Exception):
  """A mistake that the caller can mend. `nla` prints its message as one line and exits with status 2."""


def shown(value: object, length: int = 40) -> str:
  """What was given, for a message: the value on one line, and not more of it than `length` characters."""
  try:
    text = " ".join(repr(value).split())
  except Exception:
    # Whatever its class does wrong, and whatever is nested too deep: the type's name is enough.
    return type(value).__name__
  return text if len(text) <= length else text[:length] + "…"


def first_line(error: BaseException) -> str:
  """The first line of what an error of another library says; its kind where it says nothing."""
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__
