"""The public object: a loaded AV and AR, and a target when it is asked to read text."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nla_jax.autoencoder import given
from nla_jax.autoencoder.answers import Answer, taken_plain, warn_of_failures
from nla_jax.autoencoder.explanation import Explanation
from nla_jax.autoencoder.fve import cosine, fve_per_activation, mse_nrm
from nla_jax.autoencoder.magnitude import Magnitude, needed
from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.rows import row_batches
from nla_jax.autoencoder.text import LONG, encode
from nla_jax.autoencoder.tokens import refuse_beyond, refuse_longer
from nla_jax.conversation.positions import choose
from nla_jax.conversation.tokens import Tokens
from nla_jax.decoding.residuals import residuals
from nla_jax.errors import NLAError
from nla_jax.models.architectures import Architecture
from nla_jax.models.lora import split
from nla_jax.reading.complete import Drawing, Target, complete, target_of
from nla_jax.reading.inputs import is_several, tokens_of
from nla_jax.reading.reading import Reading
from nla_jax.reading.steer import STRENGTHS, Options, steer
from nla_jax.reading.steered import Steered

_BY_ERROR = operator.attrgetter("error")


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
    warn: is shown the answers of each call, to say where most of them hold no explanation.
    magnitude: says how large an activation is, from its reconstruction; None where the pair does not.
  """

  pair: Pair
  av_params: Any
  ar_params: Any
  base: str
  baseline: float | None = None
  load_target: Callable[[str, int | None, str], tuple[Architecture, Any]] | None = None
  model_adapter: str = ""
  warn: Callable[[Sequence[Answer]], Any] = warn_of_failures
  magnitude: Magnitude | None = None

  def explain(
    self,
    activations,
    *,
    greedy: bool = False,
    seed: int = 0,
    batch: int = 64,
    best_of: int = 1,
    watch: Callable[[int, str], None] | None = None,
    **options,
  ) -> list[Explanation]:
    """Explanations of raw activations [n, d_model], each judged by the AR.

    Args:
      activations: an array of numpy, JAX or torch, or a list; only their directions matter.
      greedy: the likeliest words instead of a draw.
      seed: of the draws.
      batch: answers drawn at once, at most.
      best_of: draw so many and keep the one that the AR rebuilds best.
      watch: called with a row and what its first draw says so far, every few tokens.
      options: `temperature` of the draws and `max_new_tokens` of an answer, in place of the pair's own; and `streams`,
        the number of the random stream of each activation, where its row shall not choose it.

    Raises:
      NLAError: something that is no finite activations [n, d_model], or what the AR rebuilds is no direction.
    """
    best_of = given.count("best_of", best_of)
    drawn = self._draw(
      activations, (1, best_of), greedy=greedy, seed=seed, batch=batch, watch=watch, **options
    )
    return [one[0] for one in drawn]

  def _draw(
    self, activations, counts: tuple[int, int], *, seed, batch, watch=None, streams=None, **options
  ) -> list[list[Explanation]]:
    """Samples of each activation, the one that the AR rebuilds best first; as `explain`.

    `counts` has the samples, and the draws of which each is the best.
    """
    vectors = given.vectors(activations, self.pair.verbalizer.architecture.d_model)
    batch, key = given.count("batch", batch), jax.random.key(given.seed(seed))
    options = given.sampling(options)

    # 1. Draw the explanations of each activation, adjacent.
    n = counts[0] * counts[1]
    repeated = np.repeat(vectors, n, axis=0)
    numbers = np.arange(len(vectors)) if streams is None else np.asarray(streams)
    numbers = (numbers[:, None] * n + np.arange(n)).reshape(-1)
    answers: list[Answer] = []
    for start, size in row_batches(len(repeated), batch):
      if watch is not None:
        options["watch"] = functools.partial(_show_first, watch, start, n)
      rows = repeated[start : start + size]
      found, _ = self.pair.sample_answers(
        self.av_params, rows, key, batch=size, streams=numbers[start : start + size], **options
      )
      answers += found
    if not self.pair.prompts.asks_for_tags:
      answers = list(map(taken_plain, answers))
    self.warn(answers)

    # 2. Judge each by what the AR rebuilds from it.
    rebuilt = self.reconstruct([answer.explanation for answer in answers], batch=batch)
    judged = []
    for start, size in row_batches(len(repeated), batch):
      found = slice(start, start + size)
      judged += map(
        self._explanation, answers[found], *_scores(rebuilt[found], repeated[found], size)
      )

    # 3. Keep the best of each sample's draws. The order of all draws would not do: its second is better than a sample.
    kept = [min(judged[i : i + counts[1]], key=_BY_ERROR) for i in range(0, len(judged), counts[1])]
    groups = [kept[i : i + counts[0]] for i in range(0, len(kept), counts[0])]
    return [sorted(group, key=_BY_ERROR) for group in groups]

  def _explanation(self, answer: Answer, similarity, error) -> Explanation:
    # What the AR makes of an empty text says nothing about the activation, and would look like a score.
    if answer.explanation is None:
      return Explanation(None, None, None, None, answer.raw, answer.reason)

    # Without the variance of an evaluation's activations an FVE would be a guess.
    known = self.baseline is not None
    fve = float(fve_per_activation(error, self.baseline)) if known else None
    return Explanation(answer.explanation, float(similarity), float(error), fve, answer.raw)

  def reconstruct(
    self, texts: Sequence[str | None], *, batch: int = 64, full_size: bool = False
  ) -> np.ndarray:
    """Reconstructions [n, d_model] float32 of explanations; their norms carry no meaning unless `full_size`.

    Args:
      texts: a list of texts, or what `explain` returned; None reads as an empty explanation.
      batch: texts read at once.
      full_size: as large as the activation, to be patched in; of a pair that says how large that is.

    Raises:
      NLAError: something that is no list of texts, a text too long for the AR, or what is rebuilt is no direction; or
        the pair does not say how large an activation is.
    """
    sized = needed(self.magnitude).full_size if full_size else np.asarray
    texts, batch = given.texts(texts), given.count("batch", batch)
    found = [np.zeros((0, self.pair.verbalizer.architecture.d_model), np.float32)]
    for start, size in row_batches(len(texts), batch):
      found.append(self.pair.reconstruct(self.ar_params, texts[start : start + size], batch=size))
    return sized(np.concatenate(found))

  def tokens(self, what, **options) -> Tokens:
    """The tokens of a text, a conversation or ids, as the target sees them; see `reading.inputs.tokens_of`."""
    architecture = self.pair.verbalizer.architecture
    if isinstance(what, str) and len(what) > LONG * architecture.max_positions:
      # An endless text is refused by its beginning.
      most = architecture.max_positions + 1
      refuse_longer(encode(self.pair.tokenizer, what, at_most=most), architecture.max_positions)
    return tokens_of(self.pair.tokenizer, what, **options)

  def activations(
    self, texts: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
  ) -> list[np.ndarray]:
    """The target's activations at tokens of each text: float32 [positions, d_model] each.

    Args:
      texts: token ids of each.
      positions: of each text, indices of its tokens.

    Raises:
      NLAError: a text is longer than the model was made for, has an id that it does not know, or there is no base model
        to read with.
    """
    # What can be wrong is said before the target is loaded, which may take minutes.
    for ids in texts:
      refuse_longer(ids, self.pair.verbalizer.architecture.max_positions)
    architecture, params = self._target
    for ids in texts:
      refuse_longer(ids, architecture.max_positions)
      refuse_beyond(ids, architecture.vocab_size, "the text")
    layer, dtype = self.pair.layer, self.pair.verbalizer.dtype
    return residuals(params, texts, positions, architecture=architecture, layer=layer, dtype=dtype)

  def read(
    self,
    what,
    positions="last",
    *,
    best_of: int = 4,
    samples: int = 1,
    seed: int = 0,
    batch: int = 64,
    inputs: Mapping[str, Any] | None = None,
    **options,
  ) -> Reading | list[Reading]:
    """What the target thinks at tokens of a text or a conversation, in words.

    Args:
      what: a text, a conversation (a list of messages), token ids, or a list of these, which share batches.
      positions: an index of a token or several, negative ones from the end; or a choice in words such as "last",
        "assistant", "every:10" or "text:Paris", see `conversation.positions`.
      best_of: draws of which each explanation is the one that the AR rebuilds best.
      samples: explanations of each position.
      seed: of the draws, and of positions that are drawn.
      batch: answers drawn at once, at most.
      inputs: how a conversation is written: `reply`, `resume` and `thinking` of `tokens`.
      options: `greedy`, `temperature`, `max_new_tokens`, as for `explain`.

    Returns:
      A reading; a list of them where `what` is a list of inputs.

    Raises:
      NLAError: what is read is none of these or the chat template refuses it, a position outside, an input longer than
        the model was made for, or no base model to read with.
    """
    best_of, samples = given.count("best_of", best_of), given.count("samples", samples)
    batch, seed = given.count("batch", batch), given.seed(seed)
    options = given.sampling(options)

    # 1. The tokens of each input, and which of them are read.
    several = is_several(what)
    tokens = [self.tokens(one, **(inputs or {})) for one in (what if several else [what])]
    places = [choose(one, positions, seed=seed) for one in tokens]

    # 2. What the target computes there, and the draws, of all inputs together.
    found = self.activations([one.ids for one in tokens], places)
    rows = np.concatenate(found)
    drawn = self._draw(rows, (samples, best_of), seed=seed, batch=batch, **options)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1).tolist()

    # 3. A reading of each input.
    readings, start = [], 0
    for of_input, chosen in zip(tokens, places, strict=True):
      end = start + len(chosen)
      here = slice(start, end)
      about = (best_of, self.pair.layer, self.baseline, self.base)
      readings.append(Reading(of_input, chosen, drawn[here], norms[here], *about))
      start = end
    return readings if several else readings[0]

  def complete(
    self, prompt_ids: Sequence[int], *, steering=None, watch=None, **drawing
  ) -> list[list[int]]:
    """What the whole target writes after a prompt: token ids of each sample, without the token that ended it.

    Args:
      prompt_ids: token ids.
      steering: a `decoding.continuations.Steering` for the one prompt, or None.
      watch: called with the token ids of each sample so far, every few tokens, or None.
      drawing: `max_new_tokens`, `samples`, `greedy`, `temperature`, `seed`, as `reading.complete.Drawing` has them.

    Raises:
      NLAError: another option, a prompt that cannot be continued, or no base model to continue it with.
    """
    how = given.named(Drawing, drawing, "complete")
    show = None if watch is None else lambda found: watch(found[0])
    found = complete(self.whole_target, [prompt_ids], how, steering=steering, watch=show)
    return found.tokens[0]

  def steer(self, what, position="last", *, edit, strength=STRENGTHS, seed=0, **options) -> Steered:
    """What the target writes once the explanation of a position is edited, beside three controls.

    Args:
      what: a text, a conversation or token ids, which the target continues.
      position: the token whose activation is explained; or several, see `where`.
      edit: {"Paris": "Rome"}, words of the explanation with what replaces them; or a new one.
      strength: α, the length of what is added in lengths of the residual; or several.
      seed: of all draws.
      options: `mode`, `where`, `tokens`, `explanation` and more, see `reading.steer.Options`.

    Raises:
      NLAError: a word that is not in the explanation, an edit that changes nothing, no explanation at that position, a
        position outside, another option, or no base model to steer.
    """
    return steer(self, what, position, edit, strength, seed, given.named(Options, options, "steer"))

  @functools.cached_property
  def whole_target(self) -> Target:
    """The whole target, loaded when it is first asked for; what `read` loaded of it is given up."""
    self.__dict__.pop("_target", None)
    return target_of(*self._load(None), self.pair)

  @functools.cached_property
  def _target(self) -> tuple[Architecture, Any]:
    """The target's architecture and its blocks 0..K, loaded when they are first asked for; see `target.read`."""
    whole = self.__dict__.get("whole_target")
    return whole.loaded if whole is not None else self._load(self.pair.layer)

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


def refuse_other_family(base: str, architecture: Architecture, pair: Pair) -> None:
  """Raises NLAError where a base model, named `base`, is none that a pair explains."""
  ours = pair.reconstructor.architecture
  if (architecture.family, architecture.d_model) != (ours.family, ours.d_model):
    raise NLAError(
      f"the base model {base} is a {architecture.family} of width "
      f"{architecture.d_model}, this pair explains a {ours.family} of width {ours.d_model}: name "
      "the right one with nla_jax.load(…, base=…)"
    )


def _show_first(
  watch: Callable[[int, str], None], start: int, n: int, first: int, answers: Sequence[str]
) -> None:
  """Shows the first draw of each activation, of a batch whose rows are `n` draws of each."""
  for i, answer in enumerate(answers, start + first):
    if i % n == 0:
      watch(i // n, answer)


def _scores(rebuilt: np.ndarray, vectors: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
  """Cosines and errors of rows, filled up to so many, for which there is a program."""
  n = len(rebuilt)
  one, other = (
    np.concatenate([x, np.repeat(x[-1:], rows - n, axis=0)]) for x in (rebuilt, vectors)
  )
  return np.asarray(cosine(one, other))[:n], np.asarray(mse_nrm(one, other))[:n]
