"""One config in one workdir: what every stage reads, each part loaded when it is first asked for."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from nla_jax.autoencoder import prompts as prompts_lib
from nla_jax.autoencoder.pair import Pair, PairSettings, make_pair
from nla_jax.config import section
from nla_jax.data import explanations
from nla_jax.data.store.store import Store
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.base_models.record import Pretrained
from nla_jax.parallel.precision import compute_dtype
from nla_jax.progress import say
from nla_jax.run.stage import Stage, closed_stage, open_stage, write_json
from nla_jax.run.warm_start import adopt
from nla_jax.workdir import FOLDERS

_SECTIONS = {
  "extract": ("model", "layer", "corpus", "seed", "compute", "data"),
  "teach": ("teacher",),
  "sft": ("init", "prompts", "inject", "av", "ar", "remat"),
  "rl": ("rl",),
  "eval": ("evaluation",),
  "export": ("export_dtype",),
}
_PARENTS = {
  "extract": (),
  "teach": ("extract",),
  "sft": ("extract", "teach"),
  "rl": ("sft",),
  "eval": ("sft", "rl"),
  "export": ("eval",),
}


@dataclasses.dataclass
class Run:
  """One config in one workdir.

  Attributes:
    config: see `nla_jax.config`.
    workdir: the run's folder.
  """

  config: ConfigDict
  workdir: Path

  def __post_init__(self):
    self.workdir = Path(self.workdir).absolute()

  def path(self, stage: str) -> Path:
    return self.workdir / FOLDERS[stage]

  def open(self, stage: str) -> Stage:
    parents = {parent: self.parent(parent).digest for parent in _PARENTS[stage]}
    return open_stage(
      self.path(stage), {**section(self.config, _SECTIONS[stage]), "made_from": parents}
    )

  def parent(self, stage: str) -> Stage:
    return closed_stage(self.path(stage), stage)

  @functools.cached_property
  def pretrained(self) -> Pretrained:
    """The base model without its weights: architecture, tokenizer, hashes."""
    return load_pretrained(self.config.model, weights=False)

  def base_params(self, stop_layer: int | None = None):
    """The base model's parameters, the caller's own; blocks 0..stop_layer alone, without the unembedding, if given."""
    say(f"loading {self.config.model}")
    return load_pretrained(self.config.model, stop_layer=stop_layer).params

  @functools.cached_property
  def prompts(self) -> prompts_lib.Prompts:
    c = self.config.prompts
    return prompts_lib.make_prompts(self.pretrained.tokenizer, c.av, c.ar, c.marker or None)

  @functools.cached_property
  def store(self) -> Store:
    self.parent("extract")
    return Store(str(self.path("extract") / "store"))

  @functools.cached_property
  def texts(self) -> dict[int, str]:
    self.parent("teach")
    return explanations.read_explanations(str(self.path("teach") / "texts"))

  @functools.cached_property
  def dtype(self):
    return compute_dtype(self.config.compute)

  def pair(self, scale: float) -> Pair:
    c = self.config
    return make_pair(
      self.pretrained.architecture,
      self.pretrained.tokenizer,
      self.prompts,
      PairSettings(
        layer=c.layer,
        scale=scale,
        mode=c.inject.mode,
        map=c.inject.map,
        max_new_tokens=c.rl.max_new_tokens,
        dtype=self.dtype,
        remat=c.remat,
        temperature=c.rl.temperature,
        kernel=c.kernel,
      ),
    )

  def context(self, row: int, tokens: int = 60) -> str:
    """The words up to and including a row's token."""
    document = self.store.documents[int(self.store.read("document", [row])[0])]
    position = int(self.store.read("position", [row])[0])
    return self.pretrained.tokenizer.decode(
      document.tokens[max(position + 1 - tokens, 0) : position + 1]
    )


def begin(config: ConfigDict, workdir: Path) -> Run:
  """Makes the workdir, keeps the config in it, and sets jax's compilation cache."""
  if config.init:
    adopt(config)
  run = Run(config, workdir)
  run.workdir.mkdir(parents=True, exist_ok=True)
  write_json(run.workdir / "config.json", json.loads(config.to_json()))
  jax.config.update(
    "jax_compilation_cache_dir",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", str(run.workdir / "compiled")),
  )
  return run
