"""How an AV's sidecar says that the vector goes in: in any spelling, since no format fixes one.

The reference replaces the embedding at the marker, and its sidecars do not say so. Others add the vector, norm-matched,
to the output of block 1, and say it under names of their own. A key that is about the injection and is not understood
is refused: the same weights read otherwise give fluent text about nothing.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nla_jax.errors import NLAError
from nla_jax.models.injection import ADD, EMBEDDING, REPLACE
from nla_jax.models.verbalizer import INJECT_AFTER

INJECTION_FILE = "injection.safetensors"
# What a sidecar's `training` says of an AV that has an injection file.
INJECTION_NOTE = (
  f"learned affine map on the injected vector, in {INJECTION_FILE}: x @ matrix + bias"
)

# Read elsewhere, or named only.
_KNOWN = {
  "injection_char",
  "injection_token_id",
  "injection_left_neighbor_id",
  "injection_right_neighbor_id",
  "injection_scale",
  "inject_scale",
  "inject_map",
  "injection_map",
}
# Texts and names, in which any word may stand.
_FREE = {
  "prompt_templates",
  "trained_on",
  "parent_checkpoints",
  "parent_datasets",
  "created_at",
  "created_by",
  "base_checkpoint",
  "base_model",
  "api_summaries",
  "corpus",
  "dataset_id",
}
_ABOUT = {"steer", "steering", "steered", "karvonen"}
_ADDS = {
  "add",
  "adds",
  "added",
  "adding",
  "addition",
  "additive",
  "additively",
  "karvonen",
  "plus",
  "sum",
  "summed",
}
_REPLACES = {
  "replace",
  "replaces",
  "replaced",
  "replacement",
  "replacing",
  "overwrite",
  "substitute",
}
_PLAIN = {"raw", "plain", "unnormalised", "unnormalized", "unscaled", "unmatched"}
_LAYERS = {"layer", "layers", "block", "blocks", "after", "depth"}
_MANNERS = {"mode", "method", "operation", "op", "how", "style", "combine", "mechanism"}
_EMBEDDING = {"embed", "embedding", "embeddings"}
_STRENGTHS = {"strength", "coefficient", "multiplier", "gain", "factor"}
_TOKENS = {"bos", "eos", "special", "generation", "token", "tokens", "prefix", "space"}


def injection_mode(mapping: dict[str, Any], path: Path) -> str | None:
  """`replace` or `add`, as a sidecar says it in one or several places; None where it says nothing.

  Args:
    mapping: the sidecar.
    path: of it, for messages.

  Raises:
    NLAError: it contradicts itself, asks for an injection that is not done here, or says what is not understood.
  """
  # 1. What each key says.
  modes, layers = {}, {}
  for name, value in _leaves(mapping):
    words, said = _words(name), _words(value) if isinstance(value, str) else []
    about = any(word.startswith("inject") or word in _ABOUT for word in words)
    if not about and not _speaks(words, value, said):
      continue
    mode, layer = _mode(words, value, said), _layer(words, value, said)
    _refuse_strangers(name, value, words, said, (mode, layer), path)
    if mode is not None:
      modes[name] = mode
    if layer is not None:
      layers[name] = layer

  # 2. Whether they agree, and whether it is done here.
  for found in (modes, layers):
    if len(set(found.values())) > 1:
      said = ", ".join(f"{name} is {_at(mapping, name)!r}" for name in found)
      raise NLAError(f"{path} contradicts itself: {said}; leave the right one")
  _refuse_elsewhere(modes, layers, mapping, path)
  return next(iter(modes.values()), REPLACE if layers else None)


def _refuse_elsewhere(modes, layers, mapping: dict[str, Any], path: Path) -> None:
  """Raises NLAError where the vector goes in at another block than it does here."""
  mode = next(iter(modes.values()), REPLACE)
  where, layer = next(iter(layers.items()), (None, None))
  name = next(iter(modes), where)
  if layer is not None and layer != INJECT_AFTER[mode]:
    raise NLAError(
      f"{path} says {where}: {_at(mapping, where)!r}; a vector is replaced at the embedding or added, norm-matched, to "
      f"the output of block {INJECT_AFTER[ADD]} (0-based) here, and nowhere else: take another checkpoint"
    )

  # Our own key has one meaning; of another's, only the block says which addition it is.
  if mode == ADD and layer is None and (name, _at(mapping, name)) != ("training.inject_mode", ADD):
    raise NLAError(
      f"{path} says {name}: {_at(mapping, name)!r} and does not say after which block: add injection_layer: "
      f"{INJECT_AFTER[ADD]} where it is the output of block {INJECT_AFTER[ADD]}"
    )


def _leaves(mapping: Any, above: str = "") -> Iterator[tuple[str, Any]]:
  """(dotted name, value) of all that is not a mapping, but for texts and names."""
  if isinstance(mapping, dict):
    for key, value in mapping.items():
      known = str(key) in _FREE or str(key) in _KNOWN
      if not known and not (str(key) == "injection" and value == INJECTION_NOTE):
        yield from _leaves(value, f"{above}.{key}" if above else str(key))
  elif isinstance(mapping, list):
    for value in mapping:
      yield from _leaves(value, above)
  elif mapping is not None:
    yield above, mapping


def _at(mapping: dict[str, Any], name: str) -> Any:
  """What stands under a dotted name."""
  for key in name.split("."):
    mapping = next(value for other, value in mapping.items() if str(other) == key)
  return mapping


def _words(text: str) -> list[str]:
  """Its words and numbers in lower case: layer1_add is layer, 1, add; normMatched is norm, matched."""
  parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
  return re.findall(r"[a-z]+|-?\d+", parted.lower())


def _speaks(words: list[str], value: Any, said: list[str]) -> bool:
  """Whether a key that does not name the injection speaks of it all the same."""
  manner = any(word in _MANNERS for word in words) and _ADDS & set(said)
  matched = {"norm", "matched"} <= set(said) or {"norm", "matched"} <= set(words)
  names = bool(_ADDS & set(words)) or bool(_REPLACES & set(words) and _EMBEDDING & set(words))
  switched = isinstance(value, bool) and names and not _TOKENS & set(words)
  # A sentence is a note, not a setting.
  return len(said) <= 8 and bool(manner or matched or switched)


def _mode(words: list[str], value: Any, said: list[str]) -> str | None:
  """The mode that a key says, if any."""
  if isinstance(value, bool):
    said = words if value else []
  if _PLAIN & set(said):
    return None
  adds = bool(_ADDS & set(said)) or {"norm", "matched"} <= set(said)
  replaces = bool(_REPLACES & set(said))
  if adds == replaces:
    return None
  return ADD if adds else REPLACE


def _layer(words: list[str], value: Any, said: list[str]) -> int | None:
  """The block that a key says, if any; −1 is the embedding."""
  if isinstance(value, bool):
    return None
  if isinstance(value, int | float):
    return int(value) if _LAYERS & set(words) and value == int(value) else None
  if _EMBEDDING & set(said):
    return EMBEDDING

  numbers = [int(word) for word in said if word.lstrip("-").isdigit()]
  return numbers[0] if len(numbers) == 1 and _LAYERS & {*words, *said} else None


def _refuse_strangers(name, value, words, said, understood, path: Path) -> None:
  """Raises NLAError where a key about the injection says what is not understood."""
  plain = bool(_PLAIN & set(said)) or (isinstance(value, bool) and bool(_PLAIN & set(words)))
  one = not isinstance(value, bool) and value == 1 and bool(_STRENGTHS & set(words))
  position = "marker" in said or {"id", "ids", "char", "prompt"} & set(words)
  if plain or not (any(part is not None for part in understood) or one or position):
    raise NLAError(
      f"{path} says {name}: {value!r} of how the vector goes in, which is not read here: a vector is replaced at the "
      f"embedding or added, norm-matched, after block {INJECT_AFTER[ADD]}; say injection_mode and "
      "injection_layer, or take another checkpoint"
    )
