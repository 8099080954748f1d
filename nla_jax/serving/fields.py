"""The fields of a request's body, each checked where it is taken out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax.conversation.messages import Message, messages_of
from nla_jax.serving.limits import Limits, RefusedError

Body = Mapping[str, Any]


def wrong(field: str, sentence: str) -> RefusedError:
  """The answer to a field of a wrong kind or size."""
  return RefusedError(422, f"{field}: {sentence}", field)


def flag(body: Body, field: str, default: bool | None) -> bool | None:
  """True, false, or what it is where it is left out or null."""
  value = body.get(field)
  if value is None:
    return default
  if not isinstance(value, bool):
    raise wrong(field, f"expected true or false, got {_shown(value)}")
  return value


def integer(body: Body, field: str, default: int, least: int, most: int) -> int:
  """A whole number from `least` to `most`."""
  return int(_within(body, field, default, (least, most), whole=True))


def number(body: Body, field: str, default: float, least: float, most: float) -> float:
  """A finite number from `least` to `most`."""
  return float(_within(body, field, default, (least, most)))


def _within(
  body: Body, field: str, default: float, ends: tuple[float, float], whole=False
) -> float:
  value = body.get(field)
  if value is None:
    return default

  # A whole number may be written as 3.0; no comparison is true of NaN.
  good = isinstance(value, int | float) and not isinstance(value, bool)
  good = good and ends[0] <= value <= ends[1] and (not whole or float(value).is_integer())
  if not good:
    kind = "a whole number" if whole else "a number"
    raise wrong(field, f"expected {kind} from {ends[0]} to {ends[1]}, got {_shown(value)}")
  return value


def text(body: Body, field: str, most: int) -> str:
  """A text that has to be there."""
  value = body.get(field)
  if not isinstance(value, str):
    raise wrong(field, f"expected a text, got {_shown(value)}")
  if len(value) > most:
    raise wrong(field, f"{len(value):,} characters, and this server reads at most {most:,}")
  return value


def conversation(body: Body, limits: Limits) -> str | list[Message]:
  """What is read: `messages`, or else `text`.

  Raises:
    RefusedError: neither is there, or they are too long.
    NLAError: a message is none.
  """
  given = body.get("messages")
  if not given:
    if not body.get("text"):
      raise RefusedError(400, "there is nothing to read: send `text` or `messages`", "text")
    return text(body, "text", limits.input_chars)

  if not isinstance(given, list) or len(given) > limits.messages:
    raise wrong("messages", f"expected a list of at most {limits.messages} messages")
  # A message without content is an empty one in this API.
  filled = [_filled(one) for one in given]
  messages = messages_of(filled, "messages")
  chars = sum(_chars(one) for one in messages)
  if chars > limits.input_chars:
    raise wrong(
      "messages", f"{chars:,} characters, and this server reads at most {limits.input_chars:,}"
    )
  return messages


def _filled(one: Any) -> Any:
  bare = isinstance(one, Mapping) and one.get("content") is None and not one.get("tool_calls")
  return {**one, "content": ""} if bare else one


def _chars(message: Message) -> int:
  calls = message.get("tool_calls", [])
  return (
    len(message["content"])
    + len(message.get("reasoning_content", ""))
    + (len(str(calls)) if calls else 0)
  )


def channels(body: Body, count: int) -> list[str | None]:
  """The channel that each of `count` messages was sent with; None of those without."""
  given = body.get("messages") or []
  if len(given) != count:
    return [None] * count
  found = [one.get("channel") for one in given]
  return [one if isinstance(one, str) else None for one in found]


def positions(body: Body, limits: Limits) -> list[int]:
  """Indices of tokens, empty where none are named."""
  given = body.get("positions")
  if given is None:
    return []
  if not isinstance(given, list) or len(given) > limits.positions:
    raise wrong("positions", f"expected a list of at most {limits.positions} whole numbers")
  for one in given:
    if isinstance(one, bool) or not isinstance(one, int):
      raise wrong("positions", f"expected whole numbers, got {_shown(one)}")
  return given


def position(body: Body) -> int | str:
  """One token: an index or a choice in words; the last where none is named."""
  found = body.get("position", "last")
  if isinstance(found, bool) or not isinstance(found, int | str):
    raise wrong("position", f"expected an index or a choice such as 'last', got {_shown(found)}")
  return found


def strengths(body: Body, default: Sequence[float], most: int) -> list[float]:
  """Finite numbers, at most `most`; one number counts as a list of it."""
  given = body.get("strengths")
  if given is None:
    return list(default)
  given = given if isinstance(given, list) else [given]
  if not 1 <= len(given) <= most:
    raise wrong("strengths", f"expected 1 to {most} numbers, got {len(given)}")
  return [number({"strengths": one}, "strengths", 0.0, -1e3, 1e3) for one in given]


def words(body: Body, field: str, most: int, chars: int) -> list[str]:
  """A list of texts of at most `chars` characters, at most `most` of them."""
  given = body.get(field)
  if given is None:
    return []
  if not isinstance(given, list) or len(given) > most:
    raise wrong(field, f"expected a list of at most {most} texts")
  return [text({field: one}, field, chars) for one in given]


def edit(body: Body, most: int) -> str | dict[str, str]:
  """A whole new explanation, or words and what replaces them."""
  given = body.get("edit")
  if not isinstance(given, dict):
    return text(body, "edit", most)
  parts = [*given, *given.values()]
  if not all(isinstance(one, str) for one in parts) or sum(map(len, parts)) > most:
    raise wrong("edit", f"expected words and their replacements of at most {most:,} characters")
  return given


def vector(body: Body, field: str, width: int) -> np.ndarray:
  """An activation, [width] float32."""
  return _vector(body.get(field), field, width)


def vectors(body: Body, field: str, width: int, most: int) -> np.ndarray:
  """Activations, [n, width] float32, at least one."""
  given = body.get(field)
  if not isinstance(given, list) or not 1 <= len(given) <= most:
    n = f"{len(given)} of them" if isinstance(given, list) else _shown(given)
    raise wrong(field, f"expected a list of 1 to {most} activations, got {n}")
  return np.stack([_vector(one, f"{field}[{i}]", width) for i, one in enumerate(given)])


def _vector(given: Any, field: str, width: int) -> np.ndarray:
  if not isinstance(given, list):
    raise wrong(field, f"expected a list of {width} numbers, got {_shown(given)}")
  if len(given) != width:
    raise RefusedError(
      400, f"{field} has {len(given)} numbers, and this model's activations have {width}", field
    )
  found = floats(given, field)
  if not np.isfinite(found).all():
    raise RefusedError(400, f"{field} holds a number that float32 cannot hold", field)
  if not found.any():
    raise RefusedError(400, f"{field} is zero: it has no direction to explain", field)
  return found


def floats(given: list, field: str) -> np.ndarray:
  """Numbers in lists of equal lengths as float32."""
  try:
    # Numpy would read strings and booleans as numbers.
    found = np.asarray(given)
    if found.dtype.kind not in "fiu":
      raise ValueError(f"numbers were expected, not {found.dtype}")
  except (ValueError, TypeError, OverflowError) as error:
    reason = " ".join(str(error).split())[:80]
    raise wrong(field, f"expected numbers in lists of one length ({reason})") from error
  with np.errstate(over="ignore"):
    return found.astype(np.float32)


def _shown(value: Any) -> str:
  if isinstance(value, float) and not math.isfinite(value):
    return "infinity"
  kind = {list: "a list", dict: "an object", type(None): "nothing"}.get(type(value))
  shown = kind or repr(value)
  return shown if len(shown) <= 40 else shown[:40] + "…"
