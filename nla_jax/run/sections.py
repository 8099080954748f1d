"""What each stage is made from: keys of the config, and the stages before it.

A stage is made again only where one of these differs, so every key of the config stands here once: at the stage that it
invalidates, or in `FREE`. A key that stood nowhere would never invalidate anything, silently; a test refuses that.
"""

from ml_collections import ConfigDict

from nla_jax.config import section

SECTIONS = {
  "extract": ("model", "model_adapter", "layer", "corpus", "seed", "compute", "data"),
  "teach": ("teacher",),
  "sft": ("init", "prompts", "inject", "lora", "av", "ar", "remat"),
  "rl": ("rl",),
  "eval": ("evaluation",),
  "export": ("export_dtype", "export_form"),
}

# Keys that may change between two runs of a stage, and why.
FREE = {
  "name": "only shown, in reports and model cards",
  "preset": "the keys that it sets are compared themselves",
  "suites": "asked for beside the evaluation; each finding says what it was made from",
  "kernel": "the same log-probabilities, up to rounding, by another program",
  "mesh": "the same numbers, up to rounding, on other devices: a run may continue on another slice",
  "checkpoint_every": "how much a stopped run repeats",
  "snapshot_every": "which steps' parameters are kept beside the result, which stays the same",
  "api": "where a model is served and what may be paid: its answers are kept by the question",
  "guard_limit": "when a run that goes wrong is stopped",
}

PARENTS = {
  "extract": (),
  "teach": ("extract",),
  "sft": ("extract", "teach"),
  "rl": ("sft",),
  "eval": ("sft", "rl"),
  "export": ("eval",),
}


def request(config: ConfigDict, stage: str, digests: dict[str, str]) -> dict:
  """What a stage is to be made from, as JSON values; `digests` are those of its `PARENTS`."""
  return {**section(config, SECTIONS[stage]), "made_from": digests}
