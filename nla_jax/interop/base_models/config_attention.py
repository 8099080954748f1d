"""How `config.json` spells rope and attention windows: both directions, for transformers 4 and 5.

transformers 5 writes `rope_parameters` (one per layer type for Gemma). Transformers 4 writes `rope_theta`,
`rope_scaling` and `rope_local_base_freq`. Both forms are read. Both are written, because transformers 4 falls back to
theta 10000 where its own key is missing.
"""

import dataclasses
from typing import Any

from nla_jax.errors import NLAError, shown
from nla_jax.models.architectures import Architecture, RopeScaling

# Of the keys that are read, those that are no number, and those whose number is no integer.
_WORDS = ("hidden_activation",)
_REALS = ("rms_norm_eps", "rope_theta", "rope_local_base_freq", "query_pre_attn_scalar")
_LARGEST = 1e15


@dataclasses.dataclass(frozen=True)
class Keys:
  """The keys of a config, with its family's defaults for those that the file leaves out."""

  config: dict[str, Any]
  family: str
  defaults: dict[str, Any]

  def given(self, key: str) -> Any:
    """The file's value, else the family's default, else None. Raises NLAError where the file's is no such number."""
    found = self.config.get(key)
    if found is None:
      return self.defaults.get(key)
    return found if key in _WORDS else self._number(key, found)

  def _number(self, key: str, found: Any) -> int | float:
    # A string of digits would be multiplied as a string, and True is 1 to Python.
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    whole = key not in _REALS
    if not is_number or not 0 < found < _LARGEST or (whole and found != int(found)):
      raise NLAError(
        f"config.json of this {self.family} model says {key}: {shown(found)}, expected a positive "
        f"{'integer' if whole else 'number'}: take the file from the model's own repository"
      )
    return int(found) if whole else found

  def value(self, key: str) -> Any:
    """As `given`. Raises NLAError where neither the file nor the family says."""
    found = self.given(key)
    if found is None:
      raise NLAError(
        f"config.json of this {self.family} model lacks {key}: take the file from the model's own "
        "repository"
      )
    return found


def rope_from_config(keys: Keys, gemma: bool) -> tuple[float, RopeScaling | None, float | None]:
  """Returns (theta, scaling, theta of sliding-window layers or None)."""
  parameters = dict(keys.config.get("rope_parameters") or {})
  local = None
  if gemma:
    sliding = parameters.get("sliding_attention") or {}
    local = float(sliding.get("rope_theta") or keys.value("rope_local_base_freq"))
    if sliding.get("rope_type", "default") != "default":
      raise NLAError(
        f"config.json scales the rope of sliding-window layers ({sliding['rope_type']}), which "
        "is not supported: choose another model"
      )
    parameters = dict(parameters.get("full_attention") or {})

  # A file may hold both forms, as ours do; the newer one is believed.
  parameters = {**(keys.config.get("rope_scaling") or {}), **parameters}
  theta = float(parameters.get("rope_theta") or keys.value("rope_theta"))
  return theta, _rope_scaling(parameters), local


def _rope_scaling(parameters: dict[str, Any]) -> RopeScaling | None:
  """The scaling that the rope's parameters ask for; None without one. Raises NLAError where we do not have it."""
  # `type` is what older files call `rope_type`.
  kind = parameters.get("rope_type") or parameters.get("type") or "default"
  if kind == "default":
    return None

  try:
    if kind == "linear":
      return RopeScaling(kind="linear", factor=float(parameters["factor"]))
    if kind == "llama3":
      return RopeScaling(
        kind="llama3",
        factor=float(parameters["factor"]),
        low_freq_factor=float(parameters["low_freq_factor"]),
        high_freq_factor=float(parameters["high_freq_factor"]),
        original_max_positions=int(parameters["original_max_position_embeddings"]),
      )
  except KeyError as error:
    raise NLAError(
      f"config.json asks for {kind} rope scaling without {error}: take the file from the "
      "model's own repository"
    ) from error

  raise NLAError(
    f"config.json asks for rope scaling {kind!r}; default, linear and llama3 are supported: "
    "choose another model or remove the scaling"
  )


def windows_from_config(keys: Keys, gemma: bool, n_layers: int) -> tuple[int, ...] | None:
  """The attention window of each layer in tokens, 0 where it sees everything; None where no layer has one."""
  config = keys.config
  # Qwen names a window that it does not use unless this key says so.
  if not gemma and not config.get("use_sliding_window"):
    return None

  kinds = config.get("layer_types")
  if kinds is None:
    kinds = _layer_types(config, gemma, n_layers)
  if len(kinds) != n_layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
    raise NLAError(
      f"config.json has {len(kinds)} layer_types of kinds {sorted(set(kinds))} for {n_layers} "
      "layers; one of sliding_attention or full_attention a layer is needed: "
      "correct layer_types"
    )

  windows = tuple(
    keys.value("sliding_window") if kind == "sliding_attention" else 0 for kind in kinds
  )
  # A Gemma without `layer_types` is read as having its usual pattern, so it keeps even a tuple of zeros.
  return windows if gemma or any(windows) else None


def _layer_types(config: dict[str, Any], gemma: bool, n_layers: int) -> list[str]:
  """The kind of each layer's attention where the file has no `layer_types`, as transformers derives it."""
  if gemma:
    # Every sixth layer sees everything; transformers 4 also wrote the period with an underscore.
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    windowed = [bool((layer + 1) % period) for layer in range(n_layers)]
  else:
    # Qwen's first layers see everything, the rest are windowed.
    first = config.get("max_window_layers", n_layers)
    windowed = [layer >= first for layer in range(n_layers)]
  return ["sliding_attention" if one else "full_attention" for one in windowed]


def windows_to_config(a: Architecture) -> dict[str, Any]:
  """The keys that say which layers attend within a window."""
  if a.windows is not None:
    found: dict[str, Any] = {
      "layer_types": ["sliding_attention" if window else "full_attention" for window in a.windows]
    }
    if any(a.windows):
      found["sliding_window"] = max(a.windows)
    if a.family != "gemma3_text":
      found["use_sliding_window"] = True
    return found

  # Said outright, for a base config may name a window that this architecture does not have.
  if a.family in ("qwen2", "qwen3"):
    return {
      "layer_types": ["full_attention"] * a.n_layers,
      "use_sliding_window": False,
      "sliding_window": None,
    }
  return {}


def rope_to_config(a: Architecture) -> dict[str, Any]:
  """The rope's keys in the form of transformers 4 and in that of 5."""
  scaling = {"rope_type": "default"}
  if a.rope_scaling is not None:
    scaling = {"rope_type": a.rope_scaling.kind, "factor": a.rope_scaling.factor}
    if a.rope_scaling.kind == "llama3":
      scaling |= {
        "low_freq_factor": a.rope_scaling.low_freq_factor,
        "high_freq_factor": a.rope_scaling.high_freq_factor,
        "original_max_position_embeddings": a.rope_scaling.original_max_positions,
      }

  # Transformers 4 looks at these alone.
  out: dict[str, Any] = {"rope_theta": a.rope_theta}
  if a.rope_scaling is not None:
    out["rope_scaling"] = scaling

  # Transformers 5 nests them, for Gemma by kind of layer.
  parameters = {"rope_theta": a.rope_theta, **scaling}
  if a.rope_theta_local is not None:
    out["rope_local_base_freq"] = a.rope_theta_local
    parameters = {
      "full_attention": parameters,
      "sliding_attention": {"rope_theta": a.rope_theta_local, "rope_type": "default"},
    }
  return out | {"rope_parameters": parameters}
