"""`nla_jax.load`: a trained pair from wherever it lies."""

import dataclasses
import os

from nla_jax import files, workdir
from nla_jax.autoencoder.nla import NLA
from nla_jax.bucket import place
from nla_jax.errors import NLAError
from nla_jax.interop.pairs.load import load_directories
from nla_jax.run.load import load_run


def load(
  path: str | os.PathLike,
  ar: str | os.PathLike | None = None,
  *,
  compute: str = "auto",
  weights: str = "auto",
  base: str | os.PathLike | None = None,
  model_adapter: str | os.PathLike | None = None,
  chat_template: str = "",
) -> NLA:
  """Loads an AV and an AR.

  Args:
    path: `package:NAME`, an installed pair; a workdir of `nla run`; a folder with `av/` and `ar/`; an AV's directory or
      hub id (`org/nla-…-av`).
    ar: the AR's directory or hub id. Left out beside an AV whose name ends in `-av` or `/av`, it is the same name
      with `ar`.
    compute: `float32`, `bfloat16` or `auto`, as `config.compute`; a workdir keeps its own.
    weights: how weights are kept: `float32`, `bfloat16` or `auto`, which is bfloat16 where products are computed so or
      where the files hold it. A workdir keeps its own.
    base: the base model that `read` takes, named as for `config.model`, in place of the sidecar's.
    model_adapter: directory of a LoRA of PEFT that is added to the target in `read`: what a fine-tune thinks. A workdir
      that was extracted with one keeps it.
    chat_template: in place of the tokenizer's: a file with a template of Jinja, or the name of one of the tokenizer's
      own. Where the pair says with which tokens it was trained, another prompt than that is refused.

  Raises:
    NLAError: nothing is found under a name; or the files, the sidecars and the tokenizers do not agree; or another
      version of nla_jax made the workdir (what it exported to `hf` still loads).
  """
  path, ar, base, model_adapter = (
    _name(what, value)
    for what, value in (
      ("path", path),
      ("ar", ar),
      ("base", base),
      ("model_adapter", model_adapter),
    )
  )
  if path is None:
    raise NLAError("path=None: expected a folder, package:NAME or a hub id")
  folder = place(files.here(path))
  # A language model's folder has a config.json too, but none of a run's keys. A workdir is known before its stages are
  # done, so that what is missing is said by name.
  config = folder / workdir.CONFIG
  if ar is None and config.is_file() and workdir.is_run_config(files.read_json(config)):
    nla = load_run(folder, chat_template=chat_template)
    return nla if model_adapter is None else dataclasses.replace(nla, model_adapter=model_adapter)

  adapter = model_adapter or ""
  return load_directories(
    path,
    ar,
    compute=compute,
    weights=weights,
    base=base,
    model_adapter=adapter,
    chat_template=chat_template,
  )


def _name(what: str, value: str | os.PathLike | None) -> str | None:
  """A path or a name as text. Raises NLAError where it is neither."""
  name = os.fspath(value) if isinstance(value, os.PathLike) else value
  if name is not None and not (isinstance(name, str) and name):
    raise NLAError(f"{what}={value!r}: expected the name of a folder, package:NAME or a hub id")
  return name
