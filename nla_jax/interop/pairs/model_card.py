"""The README.md of an exported AV or AR: what it is, how well it does and against which controls, how it is used.

Numbers come from a run's metrics.json, with their intervals and the names of `nla_jax.quantities`, or are said not to
be there. The base model's licence is carried over where its own files name it, and said to be unknown where they do
not; it is never guessed from a name.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from nla_jax import quantities
from nla_jax.errors import NLAError
from nla_jax.interop.base_models import gguf
from nla_jax.interop.base_models.find import cached_directory, is_hub_id, locate
from nla_jax.interop.pairs.adapted import BASE_HASH
from nla_jax.interop.pairs.sidecar import ModelSidecar, read_model_sidecar

README = "README.md"
_NAMES = {"av": "activation verbalizer", "ar": "activation reconstructor"}
_DOES = {
  "av": "It writes an explanation, in words, of one activation vector of its base model.",
  "ar": "It rebuilds an activation vector of its base model from an explanation in words.",
}
_STAGES = {"init": "none", "sl": "supervised", "rl": "supervised, then reinforcement learning"}
_TERMS = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def base_licence(base: str) -> str | None:
  """Finds what the base model's own files call its licence, for a front matter; None where they say nothing.

  It reads a GGUF's header, or the README of a local directory or of a hub id's directory in the hub's cache.
  """
  try:
    located = locate(base)
    if located.kind == "random":
      return None
    if located.kind == "gguf":
      found = gguf.read_header(located.path).get("general.license")
      return str(found).strip() or None if found else None
  except NLAError:
    return None  # a card is no place to fail for a file that is not there

  folder = cached_directory(base)
  readme = folder and folder / README
  if readme is None or not readme.is_file():
    return None

  # The hub's licence "other" has its real name in a field of its own.
  front = front_matter(readme.read_text(encoding="utf-8", errors="replace"))
  name = front.get("license_name") if front.get("license") == "other" else front.get("license")
  return name if isinstance(name, str) and name else None


def front_matter(text: str) -> dict[str, Any]:
  """Reads the YAML between the first two lines of dashes; empty where there is none that can be read."""
  # A README may hold anything between dashes; only a mapping is a front matter.
  match = _FRONT.match(text)
  try:
    found = yaml.safe_load(match.group(1)) if match else None
  except yaml.YAMLError:
    return {}
  return found if isinstance(found, dict) else {}


def write_card(
  directory: str | Path, metrics: dict[str, Any] | None = None, *, title: str | None = None
) -> Path:
  """Writes `directory/README.md` from the directory's own sidecar; returns its path.

  Licence and notice files of a base model that is a local directory, or in the hub's cache, are copied beside it.

  Args:
    directory: an exported AV or AR.
    metrics: of `metrics.json`; None where the pair was not evaluated.
    title: heading; the directory's base model and layer where None.

  Raises:
    NLAError: the directory has no sidecar, or the card cannot be written.
  """
  path, side = Path(directory) / README, read_model_sidecar(directory)
  text = card(side, metrics, title=title)
  try:
    path.write_text(text, encoding="utf-8")

    # Many licences ask that their text goes with the weights.
    base = cached_directory(side.base_checkpoint)
    for file in sorted(base.iterdir()) if base is not None else ():
      if file.is_file() and file.name.upper().startswith(_TERMS):
        shutil.copyfile(file, path.parent / file.name)
  except OSError as error:
    raise NLAError(
      f"{path} could not be written ({error.strerror}): free some space or choose another directory"
    ) from error
  return path


def card(
  side: ModelSidecar, metrics: dict[str, Any] | None = None, *, title: str | None = None
) -> str:
  """Writes the card's text; see `write_card`."""
  licence = base_licence(side.base_checkpoint)
  role = _NAMES[side.role]

  heading = (
    title or f"{role[0].upper()}{role[1:]} of {side.base_checkpoint}, block {side.layer_index}"
  )

  # The hub finds models by these fields; a base model that is no hub id would be a broken link.
  front: dict[str, Any] = {
    "library_name": "peft" if BASE_HASH in side.training else "transformers",
    "tags": ["natural-language-autoencoder", role.replace(" ", "-"), "interpretability", "jax"],
  }
  if is_hub_id(side.base_checkpoint):
    front["base_model"] = side.base_checkpoint

  if licence is not None:
    # The hub accepts only identifiers in lower case; a name of another form goes under `license_name`.
    front |= (
      {"license": licence}
      if re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", licence)
      else {"license": "other", "license_name": licence}
    )

  parts = [
    "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---\n",
    f"# {heading}\n",
    _what(side),
    _how_well(metrics),
    _how_to_use(side),
    _limits(metrics),
    _licence(side.base_checkpoint, licence),
  ]
  return "\n".join(parts)


def _licence(base: str, licence: str | None) -> str:
  # Weights that derive from others carry their terms, whether these are known here or not.
  if licence is not None:
    return (
      f"## Licence\n\nThe weights derive from {base}, whose files name the licence `{licence}`. Its terms hold "
      "for these weights too.\n"
    )
  return (
    f"## Licence\n\nThe weights derive from {base}. Its files were not there, or name no licence; find out which "
    "it is before you pass these weights on: its terms hold for them too.\n"
  )


def _what(side: ModelSidecar) -> str:
  """What it is, as a sentence and a table."""
  # A path says nothing outside the machine it was made on.
  data = [Path(name).name if name.startswith("/") else name for name in side.trained_on]
  rows = [
    ("role", f"{_NAMES[side.role]} ({side.role.upper()})"),
    ("base model", side.base_checkpoint),
    ("activation", f"output of block {side.layer_index} (0-based), width {side.d_model}"),
    ("training", _STAGES.get(side.stage, side.stage)),
    ("data", ", ".join(data)),
  ]
  if side.role == "av":
    marker = f"at {side.tokens.injection_char} (id {side.tokens.injection_token_id})"
    rows.append(("injection", f"{marker}, scale {side.injection_scale:g}"))

  table = "".join(f"| {name} | {_cell(value)} |\n" for name, value in rows if value)
  return (
    f"{_DOES[side.role]} It is one half of a natural language autoencoder: an AV puts an activation into words, an AR "
    f"rebuilds the activation from these words alone.\n\n| | |\n|---|---|\n{table}"
  )


def _cell(text: str) -> str:
  return str(text).replace("|", "\\|")


def _how_well(metrics: dict[str, Any] | None) -> str:
  """What was measured, every number with its interval, beside the controls."""
  if metrics is None:
    return "## How well\n\nThis pair was not evaluated.\n"

  # Controls stand beside the results: an FVE alone does not show that the words mean something.
  results = quantities.measured(metrics, "result", "difference", "reference")
  controls = quantities.measured(metrics, "control")
  head = "| | value | 95 % interval | activations | what it is |\n|---|---|---|---|---|\n"
  return "".join(
    [
      "## How well\n\nFraction of variance explained (FVE) on documents that nothing was trained on: 1 is "
      "perfect, 0 no better than the mean. Intervals resample groups of documents.\n\n",
      head,
      *map(_row, results),
      "\nControls, which the round trip must beat for the explanations to mean something:\n\n",
      head,
      *map(_row, controls),
      "\nOther numbers:\n\n| | value | what it is |\n|---|---|---|\n",
      *map(_short_row, quantities.measured(metrics, "number", "loss")),
      _ladder(metrics.get(quantities.LADDER)),
    ]
  )


def _ladder(found: dict[str, list[dict[str, str]]] | None) -> str:
  """The rungs of evidence of each question that was asked, from the bottom up."""
  if not found:
    return ""
  names = [one["rung"] for one in next(iter(found.values()))]
  lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
  for suite, rungs in found.items():
    cells = [f"**{one['state']}**: {_cell(one['detail'])}" for one in rungs]
    lines.append(f"| {_cell(suite.replace('_', ' '))} | {' | '.join(cells)} |")
  return (
    "\nThe ladder. Where a rung is broken, what stands above it says nothing of the explanations:\n\n"
    + "\n".join(lines)
    + "\n"
  )


def _row(one: quantities.Found) -> str:
  interval = f"{one.ci95[0]:.3f} to {one.ci95[1]:.3f}" if one.ci95 else "none"
  n = "" if one.n is None else one.n
  name, sentence = _cell(one.quantity.label), _cell(one.quantity.sentence)
  return f"| {name} | {one.value:.3f} | {interval} | {n} | {sentence} |\n"


def _short_row(one: quantities.Found) -> str:
  value = f"{one.value:.1%}" if one.quantity.unit == "share" else f"{one.value:.3f}"
  return f"| {_cell(one.quantity.label)} | {value} | {_cell(one.quantity.sentence)} |\n"


def _how_to_use(side: ModelSidecar) -> str:
  """How it is loaded here, and what to do with it in transformers."""
  d = side.d_model
  common = f"""## How to use it

```python
import nla_jax

nla = nla_jax.load("path/to/av", ar="path/to/ar")
nla.explain(activations)         # [n, {d}], raw outputs of block {side.layer_index}
nla.reconstruct(["some words"])  # [n, {d}], directions
```

"""

  if BASE_HASH in side.training:
    return common + (
      f"The weights are adapters in PEFT's format on `{side.base_checkpoint}`, which `nla_jax.load` finds by that name "
      "and compares by its hash (`base_hash` in the sidecar).\n"
    )

  if side.role == "av":
    injection = f"{side.injection_scale:g} · h / ‖h‖"
    learned = (
      " after the learned map of `injection.safetensors`" if "injection" in side.training else ""
    )
    verb = "has added to it" if side.training.get("inject_mode") == "add" else "is replaced by"
    return common + (
      "Or with `transformers`: render the template below as one user turn; the embedding at the one "
      f"token `{side.tokens.injection_char}` {verb} `{injection}`{learned}. The explanation stands "
      f"between `<explanation>` and `</explanation>`.\n\n```\n{side.av_template}\n```\n"
    )

  lines = side.training.get("ar_lines", 1)
  apart = (
    f" Each line of an explanation is read so by itself, at most {lines} of them, and their vectors are added."
    if lines > 1
    else ""
  )
  return common + (
    "Or with `transformers`: load it as a causal language model, replace the final norm and `lm_head` "
    "by the identity, tokenise the template below with special tokens, and apply "
    "`value_head.safetensors` (`weight`, [out, in]) to the residual of the last token."
    f"{apart}\n\n"
    f"```\n{side.ar_template}\n```\n"
  )


def _limits(metrics: dict[str, Any] | None) -> str:
  # What readers most often take an explanation for stands first.
  unjudged = "" if metrics is not None else " Nothing here says how good they are."
  return (
    "## Limits\n\nAn explanation is what lets the AR rebuild a direction, not a proof of what the model "
    "computes. Much of what a trained AV conveys is text that it expects next, often in quotes. Norms are not "
    f"encoded. An explanation may be wrong about its activation: check it against the text.{unjudged}\n"
  )
