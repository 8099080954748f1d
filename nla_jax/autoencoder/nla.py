"""The public object: a loaded AV and AR, and a target when it is asked to read text."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder import given
from nla_jax.autoencoder.answers import Answer, taken_plain
from nla_jax.autoencoder.fve import cosine, fve_per_activation, mse_nrm
from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.text import encode
from nla_jax.autoencoder.tokens import refuse_beyond
from nla_jax.decoding.weights import decode_copy
from nla_jax.errors import NLAError
from nla_jax.models import target
from nla_jax.models.architectures import Architecture
from nla_jax.models.language_model import LanguageModel
from nla_jax.models.lora import split
from nla_jax.models.parameters import as_base
from nla_jax.parallel import sharding
from nla_jax.progress import say
from nla_jax.reading.complete import Target, complete, drawing_of
from nla_jax.reading.steer import STRENGTHS, options_of, steer
from nla_jax.reading.steered import Steered


@dataclasses.dataclass(frozen=True)
class Explanation:
  """One explanation of one activation.

  Attributes:
    text: None where the AV's answer holds no explanation; `reason` says why.
    cosine: between the activation and its reconstruction from the text alone; None without a text.
    mse_nrm: 2(1 − cosine), in [0, 4]; None without a text.
    fve: 1 − mse_nrm / baseline variance; None where the baseline is not known, or without a text.
    answer: all that the AV wrote, with the tags.
    reason: why there is no text; None where there is one.
  """

  text: str | None
  cosine: float | None
  mse_nrm: float | None
  fve: float | None
  answer: str = ""
  reason: str | None = None


@dataclasses.dataclass
class NLA:
  """A natural language autoencoder.

  Attributes:
    pair: modules, prompts and tokenizer.
    av_params: the AV's parameters.
    ar_params: the AR's parameters.
    base: name of the base model, from which the target is loaded when text is read; empty where not known.
    baseline: variance of the normalised activations of its evaluation, for FVE; None where not known.
    load_target: from (base, layer, adapter) to (architecture, parameters of blocks 0..layer, or of all with None).
    model_adapter: a LoRA of PEFT that `read` adds to the target, a directory; empty for none.
  """

  pair: Pair
  av_params: Any
  ar_params: Any
  base: str
  baseline: float | None = None
  load_target: Callable[[str, int | None, str], tuple[Architecture, Any]] | None = None
  model_adapter: str = ""

  def explain(
    self, activations, *, greedy: bool = False, seed: int = 0, batch: int = 64, best_of: int = 1
  ) -> list[Explanation]:
    """Explanations of raw activations [n, d_model], each judged by the AR.

    Args:
      activations: an array of numpy, JAX or torch, or a list; only their directions matter.
      greedy: the likeliest words instead of a draw.
      seed: of the draws.
      batch: activations explained at once.
      best_of: draw so many and keep the one that the AR rebuilds best.

    Raises:
      NLAError: something that is no finite activations [n, d_model], or what the AR rebuilds is no direction.
    """
    vectors = given.vectors(activations, self.pair.verbalizer.architecture.d_model)
    best_of, batch = given.count("best_of", best_of), given.count("batch", batch)
    seed = given.seed(seed)
    if not len(vectors):
      return []

    # 1. Draw `best_of` explanations of each activation, adjacent.
    repeated = np.repeat(vectors, best_of, axis=0)
    batch, key = min(batch, len(repeated)), jax.random.key(seed)
    answers, _ = self.pair.sample_answers(self.av_params, repeated, key, batch=batch, greedy=greedy)
    if not self.pair.prompts.asks_for_tags:
      answers = list(map(taken_plain, answers))
    _warn_of_failures(answers)

    # 2. Judge each by what the AR rebuilds from it.
    texts = [answer.explanation for answer in answers]
    rebuilt = self.reconstruct(texts, batch=batch)
    errors, cosines = np.asarray(mse_nrm(rebuilt, repeated)), np.asarray(cosine(rebuilt, repeated))

    # 3. Keep the best of each activation's: no text is worse than any, whatever the AR makes of an empty one.
    first = np.arange(len(vectors)) * best_of
    judged = np.where([text is None for text in texts], np.inf, errors)
    best = first + judged.reshape(-1, best_of).argmin(axis=1)
    return [self._explanation(answers[i], cosines[i], errors[i]) for i in best]

  def _explanation(self, answer: Answer, similarity, error) -> Explanation:
    # What the AR makes of an empty text says nothing about the activation, and would look like a score.
    if answer.explanation is None:
      return Explanation(None, None, None, None, answer.raw, answer.reason)

    # Without the variance of an evaluation's activations an FVE would be a guess.
    known = self.baseline is not None
    fve = float(fve_per_activation(error, self.baseline)) if known else None
    return Explanation(answer.explanation, float(similarity), float(error), fve, answer.raw)

  def reconstruct(self, texts: Sequence[str | None], *, batch: int = 64) -> np.ndarray:
    """Reconstructions [n, d_model] float32 of explanations; their norms carry no meaning.

    Args:
      texts: a list of texts, or what `explain` returned; None reads as an empty explanation.
      batch: texts read at once.

    Raises:
      NLAError: something that is no list of texts, a text too long for the AR, or what is rebuilt is no direction.
    """
    texts, batch = given.texts(texts), given.count("batch", batch)
    if not texts:
      return np.zeros((0, self.pair.verbalizer.architecture.d_model), np.float32)
    return self.pair.reconstruct(self.ar_params, texts, batch=batch)

  def read(self, text: str, positions: int | Sequence[int] = (-1,), **options) -> list[Explanation]:
    """What the target thinks at token positions of `text`.

    Args:
      text: what the target reads.
      positions: indices of its tokens, or one; negative ones count from the end.
      options: as for `explain`.

    Raises:
      NLAError: a position outside of the text, a text longer than the model was made for, or no base model to read
        with.
    """
    # What can be wrong is said before the target is loaded, which may take minutes.
    ids = encode(self.pair.tokenizer, given.text(text), special=True)
    places = given.positions(positions, len(ids))
    _check_length(ids, self.pair.verbalizer.architecture)
    if not places:
      return []

    architecture, params = self._target
    _check_length(ids, architecture)
    refuse_beyond(ids, architecture.vocab_size, "the text")
    found = target.read(
      params,
      jnp.array([ids], jnp.int32),
      jnp.zeros(len(places), jnp.int32),
      jnp.array(places, jnp.int32),
      architecture=architecture,
      layer=self.pair.layer,
      dtype=self.pair.verbalizer.dtype,
    )
    return self.explain(sharding.fetch(found.activations), **options)

  def complete(self, prompt_ids: Sequence[int], *, steering=None, **drawing) -> list[list[int]]:
    """What the whole target writes after a prompt: token ids of each sample, without the token that ended it.

    Args:
      prompt_ids: token ids.
      steering: a `decoding.continuations.Steering` for the one prompt, or None.
      drawing: `max_new_tokens`, `samples`, `greedy`, `temperature`, `seed`, as `reading.complete.Drawing` has them.

    Raises:
      NLAError: another option, a prompt that cannot be continued, or no base model to continue it with.
    """
    drawing = drawing_of(drawing)
    return complete(self.whole_target, [prompt_ids], drawing, steering=steering).tokens[0]

  def steer(
    self, what, position="last", *, edit, strength=STRENGTHS, seed: int = 0, **options
  ) -> Steered:
    """What the target writes once the explanation of a position is edited, beside three controls.

    Args:
      what: a text, a conversation or token ids, which the target continues.
      position: the token whose activation is explained; or several, see `where`.
      edit: {"Paris": "Rome"}, words of the explanation and what replaces them; or a whole new explanation.
      strength: α, the length of what is added in lengths of the residual; or several.
      seed: of the explanation, of the controls and of the continuations.
      options: `mode`, `where`, `tokens`, `samples`, `greedy`, `temperature`, `words`, `explanation`, `best_of`, as
        `reading.steer.Options` has them.

    Raises:
      NLAError: an edit of a word that is not in the explanation or that changes nothing, no explanation at that
        position, a position outside, another option, or no base model to steer.
    """
    return steer(self, what, position, edit, strength, seed, options_of(options))

  @functools.cached_property
  def whole_target(self) -> Target:
    """The whole target, loaded when it is first asked for; what `read` loaded of it is given up."""
    architecture, params = self._load(None)
    dtype = self.pair.verbalizer.dtype
    if "base" not in params:
      params = {"base": params if dtype == jnp.float32 else as_base(params)}
    # Read where it lies, or copied here once into the type that products take, instead of at every call.
    if not sharding.has_mesh():
      params = {"base": decode_copy({"transformer": {}, **params}, dtype)["base"]}

    # Where the model's own files end a text and where its chat template ends a turn.
    end = self.pair.tokenizer.eos_token_id
    ends = self.pair.prompts.stop_ids
    ends = ends if end is None or end in ends else (end, *ends)
    self.__dict__.pop("_target", None)
    return Target(LanguageModel(architecture, dtype), params, ends)

  @functools.cached_property
  def _target(self) -> tuple[Architecture, Any]:
    """The target's architecture and its blocks 0..K, loaded when they are first asked for; see `target.read`."""
    whole = self.__dict__.get("whole_target")
    return (
      self._load(self.pair.layer) if whole is None else (whole.model.architecture, whole.params)
    )

  def _load(self, layer: int | None) -> tuple[Architecture, Any]:
    """The target's blocks 0..layer, or all of it. Raises NLAError where there is no base model."""
    # Of adapters the frozen base is the target, and it is here.
    _, base = split(self.av_params)
    if base is not None and not self.model_adapter:
      return self.pair.verbalizer.architecture, {"base": base}

    if not self.base or self.load_target is None:
      raise NLAError(
        "the sidecar of this pair names no base model to read with: name it with nla_jax.load(…, base=…), "
        "a folder, a .gguf file, package:NAME or a hub id"
      )
    architecture, params = self.load_target(self.base, layer, self.model_adapter)
    refuse_other_family(self.base, architecture, self.pair)
    return architecture, params


def _check_length(ids: Sequence[int], architecture: Architecture) -> None:
  """Raises NLAError where a text has more tokens than a model has learned positions: its states there mean nothing."""
  if len(ids) > architecture.max_positions:
    raise NLAError(
      f"this text takes {len(ids)} tokens and the model was made for {architecture.max_positions}: give a shorter one, "
      "which ends where you want to read"
    )


def refuse_other_family(base: str, architecture: Architecture, pair: Pair) -> None:
  """Raises NLAError where a base model, named `base`, is none that a pair explains."""
  ours = pair.reconstructor.architecture
  if (architecture.family, architecture.d_model) != (ours.family, ours.d_model):
    raise NLAError(
      f"the base model {base} is a {architecture.family} of width "
      f"{architecture.d_model}, this pair explains a {ours.family} of width {ours.d_model}: name "
      "the right one with nla_jax.load(…, base=…)"
    )


def _warn_of_failures(answers: Sequence[Answer]) -> None:
  """Says so, once, where most answers of a call hold no explanation, with the commonest reason."""
  reasons = Counter(answer.reason for answer in answers if answer.reason is not None)
  failed = sum(reasons.values())
  if 2 * failed > len(answers):
    reason, n = reasons.most_common(1)[0]
    shown = next(answer.raw for answer in answers if answer.reason == reason)
    say(
      f"warning: {failed} of {len(answers)} answers hold no explanation; in {n} {reason}: {shown[:60]!r}. Each "
      "explanation's `answer` and `reason` say more"
    )
