"""What a tokenizer makes of the two prompts: for `nla inspect`, which renders them as a run would."""

from collections.abc import Callable, Sequence

from nla_jax.autoencoder.chat import TemplateError, chosen_template
from nla_jax.autoencoder.prompts import NoMarkerError, Prompts, make_prompts
from nla_jax.autoencoder.tokens import check_vocabulary
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.record import check_ends
from nla_jax.interop.pairs.beforehand import check_beforehand
from nla_jax.interop.pairs.sidecar import ModelSidecar
from nla_jax.models.architectures import Architecture

# Where none of the default's characters is one token: enough to see the rest of the prompt.
_OTHER_MARKERS = "号※§¶¤□■◆●@#"


def describe_prompts(
  tokenizer, architecture: Architecture | None, ends: Sequence[int]
) -> tuple[dict[str, object], list[str]]:
  """Renders both prompts, and runs every check that a run makes before its first step.

  Args:
    tokenizer: of the base model.
    architecture: of the base model; None where it could not be read.
    ends: tokens that end an answer by the model's own files.

  Returns:
    Facts by name, and a line for each thing that is wrong.
  """
  facts, missing = {}, []
  try:
    chosen_template(tokenizer)
  except NLAError as error:
    return facts, [str(error)]

  # What is not in the vocabulary cannot be shown; the rest of the prompts can.
  if architecture is not None:
    try:
      check_ends(ends, architecture.vocab_size, "the model")
    except NLAError as error:
      missing.append(str(error))
      ends = [end for end in ends if 0 <= end < architecture.vocab_size]

  # A tokenizer without such a token is no fault of the model: a config can name another marker.
  try:
    prompts = _prompts(tokenizer, ends, facts)
    if prompts is not None:
      facts |= _of_prompts(prompts, tokenizer)
    if architecture is not None and prompts is not None:
      check_beforehand(architecture, tokenizer, prompts, architecture.n_layers - 1, ends)
    elif architecture is not None:
      check_vocabulary(tokenizer, architecture.vocab_size)
  except NLAError as error:
    missing.append(str(error))
  return facts, missing


def _prompts(tokenizer, ends: Sequence[int], facts: dict[str, object]) -> Prompts | None:
  """The prompts with the first marker that serves; None where a config must name one."""
  try:
    prompts = make_prompts(tokenizer, ends=ends)
    facts["first marker"] = f"{prompts.marker} id {prompts.marker_id}"
    return prompts
  except NoMarkerError:
    facts["first marker"] = "none in U+3200..U+33FF is one token: a config must name one"

  for marker in _OTHER_MARKERS:
    try:
      return make_prompts(tokenizer, marker=marker, ends=ends)
    except TemplateError:
      raise
    except NoMarkerError:
      continue
  return None


def _of_prompts(prompts: Prompts, tokenizer) -> dict[str, object]:
  """Facts of prompts that could be made."""
  length = len(prompts.before) + len(prompts.after)
  before, after = (tokenizer.decode(ids) for ids in (prompts.before, prompts.after[1:]))
  stops = (tokenizer.decode([token]) for token in reversed(prompts.stop_ids))
  return {
    "AV prompt": f"{length} tokens, {_short(before)} {prompts.marker} {_short(after)}",
    "AV turn ends with": repr(tokenizer.decode(prompts.close)),
    "sampling stops at": ", ".join(map(repr, stops)),
  }


def _short(text: str) -> str:
  """The two ends of a text, quoted."""
  return repr(text if len(text) < 60 else f"{text[:30]} … {text[-30:]}")


def contradictions(
  side: ModelSidecar, tokenizer, architecture: Architecture | None, ends: Sequence[int]
) -> list[str]:
  """Where the parts of an AV or AR contradict each other, as `pairs.directories` asks before it reads a weight.

  Args:
    side: its sidecar.
    tokenizer: None where it could not be read.
    architecture: None where it could not be read.
    ends: tokens that end an answer by the model's own files.
  """
  found = []
  checks: list[Callable[[], None]] = []
  if tokenizer is not None:
    checks.append(lambda: side.verify(tokenizer, ends))
    if architecture is not None:
      checks.append(lambda: check_vocabulary(tokenizer, architecture.vocab_size))

  # Each for itself: the first must not hide the second.
  for check in checks:
    try:
      check()
    except NLAError as error:
      found.append(str(error))

  if architecture is not None and side.d_model != architecture.d_model:
    found.append(
      f"the sidecar says d_model {side.d_model}, config.json {architecture.d_model}: they belong to "
      "different checkpoints"
    )
  return found
