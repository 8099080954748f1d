"""`adapter_config.json` of PEFT's LoRA: what of it changes the model's function, and what is refused.

The fields are those of `LoraConfig` in peft 0.21. Which modules and layers are adapted is not read here: the names in
the safetensors say it, whether `target_modules` is a list, a regular expression or `all-linear`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nla_jax import files
from nla_jax.errors import NLAError

CONFIG_FILE = "adapter_config.json"

# What `Settings` holds.
READ = (
  "alpha_pattern",
  "base_model_name_or_path",
  "lora_alpha",
  "peft_type",
  "r",
  "rank_pattern",
  "use_rslora",
)

# Fields that say how an adapter was begun, trained or found; the function of the saved one does not depend on them.
IRRELEVANT = (
  "auto_mapping",
  "corda_config",
  "ensure_weight_tying",
  "eva_config",
  "exclude_modules",
  "inference_mode",
  "layers_pattern",
  "layers_to_transform",
  "loftq_config",
  "lora_dropout",
  "lora_ga_config",
  "megatron_core",
  "peft_version",
  "qalora_group_size",
  "revision",
  "runtime_config",
  "target_modules",
  "task_type",
)

# Fields that make the function another than that of plain LoRA on the blocks' matrices, and what they are without.
REFUSED = {
  "alora_invocation_tokens": None,
  "arrow_config": None,
  "bias": "none",
  "fan_in_fan_out": False,
  "kasa_config": None,
  "layer_replication": None,
  "lora_bias": False,
  "megatron_config": None,
  "modules_to_save": None,
  "monteclora_config": None,
  "target_parameters": None,
  "trainable_token_indices": None,
  "use_bdlora": None,
  "use_dora": False,
  "use_qalora": False,
  "velora_config": None,
}

# Other starts than these (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take a part out of the base's own weights, and an
# adapter that was not converted when it was saved belongs to what they left of them.
STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """Ranks and scales of an adapter's modules.

  Attributes:
    base: `base_model_name_or_path`, as whoever trained the adapter called the base model; may be empty.
    rank: of modules that no pattern names.
    alpha: likewise.
    ranks: {pattern: rank}; the first pattern that a module's path ends with counts.
    alphas: {pattern: alpha}, likewise.
    rslora: the scale is alpha / √rank instead of alpha / rank (arXiv:2312.03732).
  """

  base: str
  rank: int
  alpha: float
  ranks: Mapping[str, int]
  alphas: Mapping[str, float]
  rslora: bool

  @property
  def scale(self) -> float:
    """The factor on B · A of modules that no pattern names."""
    return self._scale(self.alpha, self.rank)

  def rank_of(self, module: str) -> int:
    """The rank of a module, given its path in the base model."""
    return _of_pattern(self.ranks, module, self.rank)

  def scale_of(self, module: str) -> float:
    """The factor on B · A of a module, given its path in the base model."""
    return self._scale(_of_pattern(self.alphas, module, self.alpha), self.rank_of(module))

  def _scale(self, alpha: float, rank: int) -> float:
    return alpha / (math.sqrt(rank) if self.rslora else rank)


def _of_pattern(values: Mapping[str, Any], module: str, default):
  """The value of the first pattern that matches the path's end, as PEFT looks it up."""
  for pattern, value in values.items():
    if re.match(rf"(.*\.)?({pattern})$", module):
      return value
  return default


def read_settings(directory: str | Path) -> Settings:
  """Reads a directory's adapter_config.json.

  Raises:
    NLAError: the file is missing or damaged, or a field asks for more than plain LoRA.
  """
  path = Path(directory) / CONFIG_FILE
  config = files.read_json(path)
  if config is None:
    raise NLAError(f"no {CONFIG_FILE} in {directory}: give the directory of a PEFT adapter")
  if not isinstance(config, dict):
    raise NLAError(f"{path} is no JSON object: fetch it again")

  _check_plain(config, path)
  numbers = {
    "rank": config.get("r"),
    "alpha": config.get("lora_alpha"),
    "ranks": config.get("rank_pattern") or {},
    "alphas": config.get("alpha_pattern") or {},
  }
  check_numbers(**numbers, path=path)
  base = config.get("base_model_name_or_path")
  return Settings(base=str(base or ""), rslora=bool(config.get("use_rslora")), **numbers)


def _check_plain(config: dict[str, Any], path: Path) -> None:
  """Raises NLAError where a field makes the adapter another thing than plain LoRA."""
  if config.get("peft_type") != "LORA":
    raise NLAError(f"{path}: peft_type is {config.get('peft_type')!r}, only 'LORA' is read")

  # A field that is not known here is from a later PEFT: while it is empty or off, nothing depends on it.
  known = {*READ, *IRRELEVANT, *REFUSED, "init_lora_weights"}
  for field, value in config.items():
    off = value == REFUSED[field] if field in REFUSED else field in known
    if not off and value not in (None, False, [], {}, ""):
      raise NLAError(
        f"{path}: {field} is {_shortened(value)}, which plain LoRA of the blocks' matrices does not "
        "have: merge the adapter into its base with PEFT (merge_and_unload) and load that model"
      )

  start = config.get("init_lora_weights", True)
  if (start.lower() if isinstance(start, str) else start) not in STARTS:
    raise NLAError(
      f"{path}: init_lora_weights is {_shortened(start)}, which changes the base's own weights: merge the "
      "adapter into its base with PEFT (merge_and_unload) and load that model"
    )


def check_numbers(rank, alpha, ranks, alphas, path: Path) -> None:
  """Raises NLAError where a rank is no positive integer, a scale no finite number, or a pattern no expression."""
  for field, value in (("rank_pattern", ranks), ("alpha_pattern", alphas)):
    if not isinstance(value, dict):
      raise NLAError(f"{path}: {field} is {_shortened(value)}, expected an object: fetch it again")
    for pattern in value:
      try:
        re.compile(pattern)
      except re.error as error:
        raise NLAError(
          f"{path}: {field} names {pattern!r}, which is no regular expression ({error}): correct it"
        ) from error

  for field, value in (("r", rank), *(("rank_pattern", value) for value in ranks.values())):
    if type(value) is not int or value < 1:
      raise NLAError(
        f"{path}: {field} is {_shortened(value)}, expected an integer of 1 or more: fetch it again"
      )

  for field, value in (
    ("lora_alpha", alpha),
    *(("alpha_pattern", value) for value in alphas.values()),
  ):
    if type(value) not in (int, float) or not math.isfinite(value):
      raise NLAError(f"{path}: {field} is {_shortened(value)}, expected a number: fetch it again")

  # Other scales are folded into B as multiples of this one.
  if alpha == 0:
    raise NLAError(f"{path}: lora_alpha is 0, so the adapter changes nothing: leave it out")


def _shortened(value: Any, length: int = 60) -> str:
  """A value in a message, on one line."""
  text = " ".join(repr(value).split())
  return text if len(text) <= length else text[:length] + "…"
