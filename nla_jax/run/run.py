"""One config in one workdir: what every stage reads, each part loaded when it is first asked for."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator

from ml_collections import ConfigDict

from nla_jax import files
from nla_jax.autoencoder import prompts as prompts_lib
from nla_jax.autoencoder.pair import Pair, PairSettings, make_pair
from nla_jax.autoencoder.text import decode
from nla_jax.bucket import SCHEMES, BucketPath, Place, is_url, place
from nla_jax.bucket import check as check_bucket
from nla_jax.config import at_home, default_config
from nla_jax.data import explanations
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.merge import with_adapter
from nla_jax.interop.adapters.read import Adapter, read_adapter
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.base_models.record import Pretrained, with_template
from nla_jax.models.lora import Lora, joined
from nla_jax.models.parameters import as_base
from nla_jax.parallel import distributed, process
from nla_jax.parallel.precision import compute_dtype
from nla_jax.progress import say
from nla_jax.run.claim import claimed
from nla_jax.run.facts import Extracted, Reinforced, Supervised, read_facts
from nla_jax.run.sections import PARENTS, request
from nla_jax.run.stage import Stage, closed_stage, open_stage
from nla_jax.run.warm_start import adopt
from nla_jax.training.settings import adapters
from nla_jax.workdir import (
  COMPILED,
  CONFIG,
  FOLDERS,
  MANIFEST,
  PROMPTS,
  STORE,
  TEXTS,
  read_config,
  write_config,
)


@dataclasses.dataclass
class Run:
  """One config in one workdir.

  Attributes:
    config: see `nla_jax.config`.
    workdir: the run's folder, on this machine or in a bucket.
  """

  config: ConfigDict
  workdir: Place

  def __post_init__(self):
    folder = files.here(self.workdir)
    if is_url(folder) and not folder.startswith(SCHEMES):
      raise NLAError(
        f"the workdir {folder} is a URL of no bucket; give a folder of this machine, or one of {', '.join(SCHEMES)}"
      )
    self.workdir = place(folder).absolute()

  def path(self, stage: str) -> Place:
    """The folder of a stage."""
    return self.workdir / FOLDERS[stage]

  def open(self, stage: str) -> Stage:
    """A stage to make, to continue, or to skip where it is done.

    Raises:
      NLAError: a stage before it is not finished, or its folder was made from something else.
    """
    digests = {parent: self.parent(parent).digest for parent in PARENTS[stage]}
    defaults = request(default_config(), stage, {})
    return open_stage(self.path(stage), request(self.config, stage, digests), defaults)

  def parent(self, stage: str) -> Stage:
    """A finished stage to read from. Raises NLAError where it is not finished."""
    return closed_stage(self.path(stage), stage)

  @property
  def extracted(self) -> Extracted:
    """What `extract` says about the store."""
    return read_facts(self.parent("extract"), Extracted)

  @property
  def supervised(self) -> Supervised:
    """What `sft` says about itself, with α."""
    return read_facts(self.parent("sft"), Supervised)

  @property
  def reinforced(self) -> Reinforced:
    """What `rl` says about itself."""
    return read_facts(self.parent("rl"), Reinforced)

  @functools.cached_property
  def pretrained(self) -> Pretrained:
    """The base model without its weights: architecture, tokenizer with the chat template that is used, hashes."""
    found = load_pretrained(self.config.model, weights=False)
    return with_template(found, self.config.prompts.chat_template)

  @functools.cached_property
  def lora(self) -> Lora | None:
    """How the AV and the AR are adapted; None where all of them is trained."""
    return adapters(self.config.lora)

  @functools.cached_property
  def frozen_base(self):
    """The base model as the frozen base of adapters, held once for all that read it; None without adapters."""
    return as_base(self.base_params()) if self.lora else None

  def whole(self, params: dict) -> dict:
    """Parameters as a stage saved them, with the frozen base of adapters."""
    return joined(params, self.frozen_base)

  @functools.cached_property
  def model_adapter(self) -> Adapter | None:
    """The adapter on the target, on the host; None where the target is the base model itself."""
    directory = self.config.model_adapter
    return read_adapter(directory, self.pretrained.architecture) if directory else None

  @property
  def target(self) -> Pretrained:
    """The target without its weights: the base model, whose hash tells the adapter on it."""
    if self.model_adapter is None:
      return self.pretrained
    both = f"{self.pretrained.model_hash}+{self.model_adapter.hash}"
    return dataclasses.replace(self.pretrained, model_hash=both)

  def target_params(self, stop_layer: int | None = None):
    """The target's parameters: the base model's, with the adapter added; arguments as of `base_params`."""
    params = self.base_params(stop_layer)
    if self.model_adapter is None:
      return params
    return with_adapter(params, self.model_adapter)

  def base_params(self, stop_layer: int | None = None):
    """The base model's parameters, read anew: the caller may donate them.

    Args:
      stop_layer: where given, blocks 0..stop_layer alone, without the unembedding.
    """
    # Not cached: of a large model there is room for one copy, which training then owns.
    say(f"loading {self.config.model}")
    return load_pretrained(self.config.model, stop_layer=stop_layer).params

  @functools.cached_property
  def prompts(self) -> prompts_lib.Prompts:
    """The two prompts as tokens, with the marker that stands where the activation goes.

    Raises:
      NLAError: SFT was done, or begun, with other tokens than the chat template and the tokenizer give now.
    """
    c, base = self.config.prompts, self.pretrained
    # No marker named: the first character that is one token of this tokenizer.
    made = prompts_lib.make_prompts(base.tokenizer, c.av, c.ar, c.marker or None, base.ends)

    folder = self.path("sft")
    done = files.exists(folder / MANIFEST)
    kept = self.supervised.prompt_ids if done else files.read_json(folder / PROMPTS)
    if kept is not None:
      prompts_lib.check_kept(kept, made, base.tokenizer, f"the AV of {folder}")
    return made

  @functools.cached_property
  def store(self) -> Store:
    """The activation store. Raises NLAError where `extract` is not finished."""
    self.parent("extract")
    return Store(str(self.workdir / STORE))

  @functools.cached_property
  def texts(self) -> dict[int, str]:
    """{row: the teacher's explanation}. Raises NLAError where `teach` is not finished."""
    self.parent("teach")
    return explanations.read_explanations(str(self.workdir / TEXTS))

  @functools.cached_property
  def dtype(self):
    """The dtype that matrix products round their operands to."""
    return compute_dtype(self.config.compute)

  def pair(self, scale: float) -> Pair:
    """The AV and AR of this run without parameters; `scale` is α."""
    c, base = self.config, self.pretrained
    settings = PairSettings(
      layer=c.layer,
      scale=scale,
      mode=c.inject.mode,
      map=c.inject.map,
      max_new_tokens=c.rl.max_new_tokens,
      dtype=self.dtype,
      remat=c.remat,
      temperature=c.rl.temperature,
      kernel=c.kernel,
      lora=self.lora,
      ar_lora=self.lora,
      ar_lines=c.prompts.ar_lines,
    )

    return make_pair(base.architecture, base.tokenizer, self.prompts, settings)

  def context(self, row: int, tokens: int = 60) -> str:
    """The text before and at a row's token: its last `tokens` tokens."""
    document = self.store.documents[int(self.store.read("document", [row])[0])]
    position = int(self.store.read("position", [row])[0])

    end = position + 1
    shown = document.tokens[max(end - tokens, 0) : end]
    return decode(self.pretrained.tokenizer, shown, special=True)


@contextlib.contextmanager
def begin(config: ConfigDict, workdir: str | Place) -> Iterator[Run]:
  """A run that is at work: makes the workdir, holds it, keeps the config in it, and compiled programs.

  `~` in the workdir and in the config's paths is the home folder, and is kept so.

  Raises:
    NLAError: the workdir was made by a version with another layout, or another run holds it; or `config.init` names
      no pair.
  """
  # 1. What is refused before anything is written: a workdir of another layout.
  run = Run(config, workdir)
  at_home(config)
  if isinstance(run.workdir, BucketPath):
    distributed.together("use the bucket", lambda: check_bucket(run.workdir))
  elif run.workdir.exists() and not run.workdir.is_dir():
    raise NLAError(f"the workdir {workdir} is a file; give a folder")
  read_config(run.workdir / CONFIG)

  # Before the config is kept: the pair to begin from decides some of its keys.
  if config.init:
    adopt(config)

  # 2. The workdir is ours. Several processes compile something to agree on that, so the cache comes first.
  if not isinstance(
    run.workdir, BucketPath
  ):  # they are of this machine's kind, and read again and again
    process.keep_compiled_programs(run.workdir / COMPILED)
  with claimed(run.workdir):
    if distributed.is_first():
      write_config(run.workdir, json.loads(config.to_json()))
    yield run
