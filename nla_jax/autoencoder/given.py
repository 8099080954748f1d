"""What callers hand to the public API, as the arrays, texts and numbers that the rest of the package takes.

A value that is none gets one sentence: what was given, what is expected, what to do.
"""

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from nla_jax.arrays import halved_to_one
from nla_jax.errors import NLAError, shown

_SEEDS = (-(2**31), 2**32 - 1)


def numbers(value: Any, what: str = "activations") -> np.ndarray:
  """Real numbers as an array on the host: of numpy, JAX or torch (any device, any gradient), or lists of these.

  Args:
    value: as the caller gave it.
    what: what messages call it.

  Returns:
    Any shape; float32, or float64 and wider where the numbers were.

  Raises:
    NLAError: it is no array of real numbers.
  """
  try:
    array = np.asarray(_on_host(value))
    # Lists of Python's own numbers of many kinds, and what pandas keeps as objects.
    if array.dtype == object and array.size and all(map(_is_real, array.flat)):
      array = array.astype(np.float64)
  except Exception as error:
    # Other libraries raise what they like.
    reason = " ".join(str(error).split())[:120]
    raise NLAError(
      f"{what} cannot be read as an array of numbers ({type(value).__name__}: {reason}): give a numpy array"
    ) from error

  # bfloat16 and float8 are of no kind that numpy knows.
  floats = array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float"))
  if not floats and array.dtype.kind not in "iu":
    raise NLAError(
      f"{what} should be real numbers, got {type(value).__name__} of {array.dtype}: give a numpy array of floats"
    )
  return array if array.dtype.kind == "f" and array.itemsize >= 4 else _widened(array)


def _widened(array: np.ndarray) -> np.ndarray:
  """Integers and short floats as floats that hold them."""
  return array.astype(np.float64 if array.dtype.kind in "iu" else np.float32)


def _on_host(value: Any) -> Any:
  """Torch's tensors as numpy arrays, in lists too; everything else as it is."""
  if isinstance(value, float | int):
    return value
  if isinstance(value, list | tuple):
    return [_on_host(one) for one in value]
  if np.ma.is_masked(value):
    raise ValueError("some entries are masked")
  if not type(value).__module__.startswith("torch"):
    return value

  # Torch is not imported for this: whoever holds a tensor has it.
  tensor = value.detach().cpu()
  # numpy has no bfloat16, and torch refuses to hand it over.
  return (
    tensor.float() if tensor.element_size() < 4 and tensor.is_floating_point() else tensor
  ).numpy()


def _is_real(value: Any) -> bool:
  return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def vectors(value: Any, d: int) -> np.ndarray:
  """Activations as directions: [n, d] float32, each times a power of two, so that its largest entry is near 1.

  Only directions matter to the AV and to every score, so vectors of any finite size are taken, and none overflows.

  Args:
    value: as `numbers` takes it.
    d: width of the pair's model.

  Raises:
    NLAError: another shape, a number that is not finite, or a vector of zeros, which has no direction.
  """
  array = numbers(value)
  if array.ndim != 2 or array.shape[1] != d:
    remedy = ": give x[None] for a single one" if array.shape == (d,) else ""
    raise NLAError(f"expected finite activations of shape [n, {d}], got {array.shape}{remedy}")

  bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
  if len(bad):
    raise NLAError(
      f"expected finite activations, {len(bad)} of {len(array)} hold NaN or infinity, the first is row {bad[0]}: "
      "leave them out, or extract them in float32 or bfloat16"
    )
  empty = np.flatnonzero(~array.any(axis=1))
  if len(empty):
    raise NLAError(
      f"{len(empty)} of {len(array)} activations are zero, the first is row {empty[0]}: they have no direction to "
      "explain; leave them out"
    )
  return halved_to_one(array).astype(np.float32)


def text(value: Any) -> str:
  """One text. Raises NLAError where it is none."""
  if not isinstance(value, str):
    raise NLAError(f"expected one text, got {_named(value)}: give a string")
  return value


def texts(value: Any) -> list[str | None]:
  """Texts for the AR, or the explanations of `NLA.explain`, whose texts are taken; None is an empty explanation.

  Raises:
    NLAError: one text alone, whose letters would be read one by one; or something that is no text.
  """
  if isinstance(value, str | bytes):
    raise NLAError(f"expected a list of texts, got one {type(value).__name__}: give [text]")
  if isinstance(value, Mapping | Set) or not isinstance(value, Iterable):
    raise NLAError(f"expected a list of texts, got {_named(value)}: give a list of strings")

  # An explanation is known by its fields: the class that has them stands above this module.
  found = [one.text if hasattr(one, "mse_nrm") else one for one in _listed(value, "texts")]
  for i, one in enumerate(found):
    if one is not None and not isinstance(one, str):
      raise NLAError(
        f"expected texts, number {i} of {len(found)} is {_named(one)}: give strings, and None where there is none"
      )
  return found


def count(name: str, value: Any) -> int:
  """A number of things, 1 or more. Raises NLAError where it is none."""
  number = _integer(value)
  if number is None or number < 1:
    raise NLAError(f"{name}={shown(value)}: expected an integer of 1 or more")
  return number


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
  """How answers are drawn: `greedy`, `temperature`, `max_new_tokens`; without those that are None.

  Raises:
    NLAError: another option, or a value that is none.
  """
  found = {key: value for key, value in options.items() if value is not None}
  known = ("greedy", "temperature", "max_new_tokens")
  unknown = next((key for key in found if key not in known), None)
  if unknown is not None:
    raise NLAError(f"{unknown}={shown(found[unknown])}: expected one of {', '.join(known)}")
  if "max_new_tokens" in found:
    found["max_new_tokens"] = count("max_new_tokens", found["max_new_tokens"])

  if "temperature" in found:
    found["temperature"] = temperature(found["temperature"])
  return found


def temperature(value: Any) -> float:
  """What divides the logits of a draw. Raises NLAError where it is no number above 0."""
  if not _is_real(value) or not 0 < value < np.inf:
    raise NLAError(
      f"temperature={shown(value)}: expected a number above 0; for the likeliest words give greedy=True"
    )
  return float(value)


def named(kind: type, options: Mapping[str, Any], caller: str) -> Any:
  """A dataclass of options that were given by name. Raises NLAError where it has none of a name.

  Args:
    kind: the dataclass.
    options: its values by name.
    caller: what was called, for the message.
  """
  known = [field.name for field in dataclasses.fields(kind)]
  unknown = next((name for name in options if name not in known), None)
  if unknown is not None:
    raise NLAError(f"{caller} has no option {shown(unknown)}: expected some of {', '.join(known)}")
  return kind(**options)


def seed(value: Any) -> int:
  """A seed of the draws. Raises NLAError where it is no integer of 32 bits."""
  number = _integer(value)
  if number is None or not _SEEDS[0] <= number <= _SEEDS[1]:
    raise NLAError(f"seed={shown(value)}: expected an integer below 2**32")
  return number


def positions(value: Any, length: int) -> list[int]:
  """Places in a text of `length` tokens, from 0; negative ones count from the end, and one number is one place.

  Raises:
    NLAError: they are no integers, or not inside the text.
  """
  given = [value] if _integer(value) is not None else value
  if isinstance(given, str | bytes | Mapping | Set) or not isinstance(given, Iterable):
    raise NLAError(
      f"positions={_named(value)}: expected indices of tokens such as [5, -1], or a choice such as 'last'"
    )

  given = _listed(given, "positions")
  places = [_integer(one) for one in given]
  if None in places:
    raise NLAError(
      f"positions: {_named(given[places.index(None)])} is no index of a token: give integers, such as [5, -1]"
    )
  outside = [place for place in places if not -length <= place < length]
  if outside:
    raise NLAError(f"positions: this text has {length} tokens, and {outside[0]} is none of them")
  return [place % length for place in places]


def _listed(value: Iterable, what: str) -> list:
  """The members of something that can be gone through once. Raises NLAError where it cannot after all."""
  try:
    return list(value)
  except Exception as error:
    # An array without an axis says only now that it has no members.
    raise NLAError(f"expected a list of {what}, got {_named(value)}: give a list") from error


def _integer(value: Any) -> int | None:
  """An integer of Python, numpy, JAX or torch; None where it is another thing."""
  # True would pass for 1; arrays of bools and of one float say no by themselves.
  if isinstance(value, bool | np.bool_):
    return None
  try:
    return operator.index(value)
  except Exception:
    return None


def _named(value: Any) -> str:
  """A value and its type, in a message."""
  return f"{type(value).__name__} {shown(value)}"
