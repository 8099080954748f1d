"""The public object: a loaded AV and AR, and a target when it is asked to read text."""
import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nla_jax.config import load_config
from nla_jax.errors import NLAError
from nla_jax.evaluation.metrics import cosine, mse_nrm
from nla_jax.interop import export, sidecar
from nla_jax.interop.pretrained import find_directory, load_pretrained
from nla_jax.models import target
from nla_jax.pair import Pair, make_pair
from nla_jax.parallel import sharding
from nla_jax.parallel.precision import compute_dtype
from nla_jax.prompts import encode, make_prompts
from nla_jax.training.checkpoint import load_params


@dataclasses.dataclass(frozen=True)
class Explanation:
  """One explanation of one activation.

  Attributes:
    text: None where the AV's answer does not parse or hit the cap.
    cosine: between the activation and its reconstruction from the text alone.
    mse_nrm: 2(1 − cosine), in [0, 4].
    fve: 1 − mse_nrm / baseline variance; None where the baseline is not known.
  """

  text: str | None
  cosine: float
  mse_nrm: float
  fve: float | None


@dataclasses.dataclass
class NLA:
  """A natural language autoencoder.

  Attributes:
    pair: modules, prompts and tokenizer.
    av_params: the AV's parameters.
    ar_params: the AR's parameters.
    base: name of the base model, from which the target is loaded when text is read; empty where not known.
    baseline: variance of the normalised activations of its evaluation, for FVE; None where not known.
  """

  pair: Pair
  av_params: Any
  ar_params: Any
  base: str
  baseline: float | None = None

  def explain(self, activations, *, greedy: bool = False, seed: int = 0, batch: int = 64,
              best_of: int = 1) -> list[Explanation]:
    """Explanations of raw activations [n, d_model], each judged by the AR.

    Args:
      activations: array-like; norms do not matter to the AV, directions do.
      greedy: the likeliest words instead of a draw.
      seed: of the draws.
      batch: activations explained at once.
      best_of: draw so many and keep the one that the AR rebuilds best.
    """
    vectors = np.asarray(activations, np.float32)
    d = self.pair.verbalizer.architecture.d_model
    if vectors.ndim != 2 or vectors.shape[1] != d or not np.isfinite(vectors).all():
      raise NLAError(f"expected finite activations of shape [n, {d}], got {vectors.shape}"
                     + ("" if np.isfinite(vectors).all() else " with NaN or infinity in it"))
    repeated = np.repeat(vectors, best_of, axis=0)
    texts, _ = self.pair.explain(self.av_params, repeated, jax.random.key(seed), batch=min(batch, len(repeated)),
                                 greedy=greedy)
    rebuilt = self.reconstruct(texts, batch=min(batch, len(repeated)))
    errors, cosines = np.asarray(mse_nrm(rebuilt, repeated)), np.asarray(cosine(rebuilt, repeated))
    best = errors.reshape(-1, best_of).argmin(axis=1) + np.arange(len(vectors)) * best_of
    fve = lambda error: None if self.baseline is None else float(1 - error / self.baseline)
    return [Explanation(texts[i], float(cosines[i]), float(errors[i]), fve(errors[i])) for i in best]

  def reconstruct(self, texts: Sequence[str | None], *, batch: int = 64) -> np.ndarray:
    """Reconstructions [n, d_model] float32 of explanations; their norms carry no meaning."""
    return self.pair.reconstruct(self.ar_params, texts, batch=batch)

  def read(self, text: str, positions: Sequence[int] = (-1,), **options) -> list[Explanation]:
    """What the target thinks at token positions of `text` (negative ones count from the end)."""
    ids = encode(self.pair.tokenizer, text, special=True)
    places = [p if p >= 0 else len(ids) + p for p in positions]
    if any(not 0 <= place < len(ids) for place in places):
      raise NLAError(f"positions {list(positions)} are not all inside this text of {len(ids)} tokens")
    architecture, params = self._target
    found = target.read(params, np.array([ids], np.int32), np.zeros(len(places), np.int32), np.array(places, np.int32),
                        architecture=architecture, layer=self.pair.layer, dtype=self.pair.verbalizer.dtype)
    return self.explain(sharding.fetch(found.activations), **options)

  @functools.cached_property
  def _target(self):
    if not self.base:
      raise NLAError("the sidecar of this pair names no base model to read with: name it with nla_jax.load(…, base=…), "
                     "a folder, a .gguf file, package:NAME or a hub id")
    found = load_pretrained(self.base, stop_layer=self.pair.layer)
    ours = self.pair.reconstructor.architecture
    if (found.architecture.family, found.architecture.d_model) != (ours.family, ours.d_model):
      raise NLAError(f"the base model {self.base} is a {found.architecture.family} of width "
                     f"{found.architecture.d_model}, this pair explains a {ours.family} of width {ours.d_model}: name "
                     "the right one with nla_jax.load(…, base=…)")
    return found.architecture, found.params


def load(path: str | os.PathLike, ar: str | os.PathLike | None = None, *, compute: str = "auto",
         base: str | None = None) -> NLA:
  """Loads an AV and an AR.

  Args:
    path: a workdir of `nla run`; a folder with `av/` and `ar/`; an AV's directory or hub id (`org/nla-…-av`).
    ar: the AR's directory or hub id. Left out beside an AV whose name ends in `-av` or `/av`, it is the same name
      with `ar`.
    compute: `float32`, `bfloat16` or `auto`, as `config.compute`; a workdir keeps its own.
    base: the base model that `read` takes, named as for `config.model`, in place of the sidecar's.

  Raises:
    NLAError: nothing is found under a name, or the files, the sidecars and the tokenizers do not agree.
  """
  folder = pathlib.Path(path).expanduser()
  if ar is None and (folder / "config.json").exists() and (folder / "rl").exists():
    return load_run(folder)
  folders = pair_directories(path, ar)
  av, rebuilder = export.read_av(folders[0]), export.read_ar(folders[1])
  side, training = av.sidecar, av.sidecar.training
  prompts = make_prompts(av.tokenizer, side.av_template, rebuilder.sidecar.ar_template, side.tokens.injection_char)
  pair = make_pair(av.architecture, av.tokenizer, prompts, layer=rebuilder.sidecar.layer_index,
                   scale=side.injection_scale, mode=training.get("inject_mode", "replace"),
                   map="scalar" if av.injection is None else "affine",
                   max_new_tokens=int(training.get("max_new_tokens", 150)), dtype=compute_dtype(compute))
  av_params = {"transformer": av.params}
  if av.injection is not None:
    av_params["injection"] = sharding.put_params(av.injection)
  ar_params = sharding.put_params({"transformer": rebuilder.params, "head": {"weight": rebuilder.head}})
  return NLA(pair, av_params, ar_params, base or side.base_checkpoint)


def pair_directories(path: str | os.PathLike, ar: str | os.PathLike | None = None,
                     weights: bool = True) -> tuple[pathlib.Path, pathlib.Path]:
  """The directories of an AV and its AR, fetched if they are hub ids; they are checked against each other.

  Args:
    path: a folder with `av/` and `ar/`, or an AV's directory or hub id.
    ar: as for `load`.
    weights: fetch the weights too.
  """
  folder = pathlib.Path(path).expanduser()
  if ar is None and folder.is_dir() and not (folder / sidecar.MODEL_FILE).is_file():
    if not ((folder / "av").is_dir() and (folder / "ar").is_dir()):
      raise NLAError(f"{folder} is neither a workdir of `nla run`, nor a folder with av/ and ar/ as `nla export` "
                     f"writes it, nor an AV (it has no {sidecar.MODEL_FILE})")
    path, ar = folder / "av", folder / "ar"
  elif ar is None:
    ar = _twin(path)
  folders = find_directory(os.fspath(path), weights=weights), find_directory(os.fspath(ar), weights=weights)
  export.check_pair(*folders)
  return folders


def _twin(av: str | os.PathLike) -> str:
  """The AR's name beside an AV's."""
  name = os.fspath(av).rstrip("/")
  twin = name[:-2] + "ar"
  if not re.search(r"(^|[-/])av$", name):
    raise NLAError(f"{name} does not end in -av, so the name of its AR is not known: give it as ar=")
  if pathlib.Path(name).expanduser().is_dir() and not pathlib.Path(twin).expanduser().is_dir():
    raise NLAError(f"there is no {twin} beside {name}: give the AR's directory or hub id as ar=")
  return twin


def load_run(workdir: pathlib.Path, *, stage: str = "rl", run=None) -> NLA:
  """The pair of a run's stage (`rl`, or `sft` for the pair before it)."""
  from nla_jax.run import Run

  workdir = pathlib.Path(workdir)
  if run is None:
    run = Run(load_config(workdir / "config.json"), workdir)
  pair = run.pair(run.parent("sft").facts["injection_scale"])
  metrics = workdir / "eval" / "metrics.json"
  baseline = None
  if metrics.exists():
    baseline = json.loads(metrics.read_text())["baseline_variance"]
  folder = run.path(stage)
  return NLA(pair, load_params(folder / "av" / "params"), load_params(folder / "ar" / "params"), run.config.model,
             baseline)
