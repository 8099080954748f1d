"""What speaks for a claim without looking at the document: numbers that the pair gives of its own words.

- recurrence: share of the last positions whose explanations make the claim too.
- frequency: share of further samples at the same position that do.
- deletion: by how much the AR's error grows without the claim, in units of the baseline variance.
- excess: the same, less what the deletion of as many random words does, on average; its spread is kept.
- fve: FVE of the whole explanation, which is low where all of it is made up.
- logprob: the AV's mean log-probability of the claim's tokens, in nats.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.explanation import Claim
from nla_jax.autoencoder.prompts import wrap_explanation
from nla_jax.autoencoder.rows import encode_answers, row_batches
from nla_jax.autoencoder.text import encode_places
from nla_jax.evaluation.claims.delete import without, without_random
from nla_jax.evaluation.claims.parse import ENDS, claims_of
from nla_jax.evaluation.claims.verdict import longest_run, words_of
from nla_jax.parallel import sharding

FEATURES = ("recurrence", "frequency", "deletion", "excess", "fve", "logprob")
_RUN = 3  # words in a row by which two quotes are one


class Options(NamedTuple):
  """How much is looked at.

  Attributes:
    positions: tokens before the explained one whose explanations are drawn.
    samples: further explanations of the explained one.
    resamples: random deletions beside each claim's.
    seed: of all draws.
    batch: explanations drawn at once.
    on_explained: called with the number of explanations after each batch.
  """

  positions: int = 10
  samples: int = 8
  resamples: int = 3
  seed: int = 0
  batch: int = 64
  on_explained: Callable[[int], None] = lambda n: None


class Read(NamedTuple):
  """An explanation of one position of one text.

  Attributes:
    ids: tokens of the text, at least up to the position.
    position: of the explained token.
    activation: [d] that was explained.
    text: the explanation; None where it did not parse.
  """

  ids: Sequence[int]
  position: int
  activation: np.ndarray
  text: str | None


class Drawn(NamedTuple):
  """Other explanations that claims are compared with.

  Attributes:
    before: of each position those of the tokens before it, the nearest first.
    again: of each position further samples of its own.
  """

  before: list[list[str | None]]
  again: list[list[str | None]]


class Evidence(NamedTuple):
  """What speaks for the claims of one explanation.

  Attributes:
    claims: in the order of its words.
    values: [claims, features] in the order of `FEATURES`; NaN where one cannot be had.
    spread: [claims] SD over random deletions of the AR's error, in units of the baseline; NaN of fewer than two.
  """

  claims: list[Claim]
  values: np.ndarray
  spread: np.ndarray


def draw(nla: Any, reads: Sequence[Read], options: Options) -> Drawn:
  """Draws the other explanations; what the read ones say plays no part.

  Raises:
    NLAError: there is no base model to read the positions before with.
  """
  return Drawn(_before(nla, reads, options), _again(nla, reads, options))


def gather(
  nla: Any,
  reads: Sequence[Read],
  drawn: Drawn,
  baseline: float,
  options: Options,
  claims: Sequence[Sequence[Claim]] | None = None,
) -> list[Evidence]:
  """The evidence of all claims of some explanations.

  Args:
    nla: the pair.
    reads: the explanations.
    drawn: others of the same positions.
    baseline: variance that errors are measured against.
    options: how much is looked at.
    claims: of each explanation, where another reader found them; parsed here where None.
  """
  found = [claims_of(one.text) for one in reads] if claims is None else list(map(list, claims))

  deletion, excess, fves, spread = _deletions(nla, reads, found, baseline, options)
  columns = np.stack(
    [
      _shares(found, drawn.before),
      _shares(found, drawn.again),
      deletion,
      excess,
      fves,
      _logprobs(nla, reads, found),
    ],
    axis=1,
  )

  evidence, start = [], 0
  for several in found:
    end = start + len(several)
    evidence.append(Evidence(several, columns[start:end], spread[start:end]))
    start = end
  return evidence


def _before(nla: Any, reads: Sequence[Read], options: Options) -> list[list[str | None]]:
  """Explanations of the tokens before each position, the nearest first."""
  if not options.positions:
    return [[] for _ in reads]

  # The first token is the BOS, or has seen nothing.
  places = [
    [at for at in range(one.position - 1, one.position - options.positions - 1, -1) if at > 0]
    for one in reads
  ]

  texts = [list(map(int, one.ids[: one.position + 1])) for one in reads]
  vectors = nla.activations(texts, places)
  return _explained(nla, vectors, 0, options)


def _again(nla: Any, reads: Sequence[Read], options: Options) -> list[list[str | None]]:
  """Further explanations of each position."""
  vectors = [np.repeat(one.activation[None], options.samples, axis=0) for one in reads]
  return _explained(nla, vectors, 1, options)


def _explained(
  nla: Any, vectors: Sequence[np.ndarray], number: int, options: Options
) -> list[list[str | None]]:
  """One explanation of each vector; `number` tells the draws of one call from those of another."""
  rows = np.concatenate([np.asarray(one, np.float32) for one in vectors])
  if not len(rows):
    return [[] for _ in vectors]

  # Numbers that no suite's own draws have.
  key = jax.random.fold_in(jax.random.key(options.seed), 1000 + number)
  settings = {"batch": options.batch, "greedy": False, "on_batch": options.on_explained}
  texts, _ = nla.pair.sample_explanations(nla.av_params, rows, key, **settings)

  ends = np.cumsum([len(one) for one in vectors])
  return [texts[end - len(one) : end] for end, one in zip(ends, vectors)]


def _shares(
  claims: Sequence[Sequence[Claim]], others: Sequence[Sequence[str | None]]
) -> np.ndarray:
  """[all claims] share of the other explanations that make the claim too; NaN where there are none."""
  found = []
  for mine, texts in zip(claims, others):
    theirs = [claims_of(text) for text in texts]

    for claim in mine:
      made = [any(same(claim, other) for other in several) for several in theirs]
      found.append(np.mean(made) if made else np.nan)
  return np.array(found, float)


def same(a: Claim, b: Claim) -> bool:
  """Says whether two explanations claim the same: of quotes three words in a row, of all else the words."""
  if a.field != b.field:
    return False
  if a.text.casefold() == b.text.casefold():
    return True
  if a.field not in (ENDS, "quote"):
    return False

  # One token on, the end of a text is another quote and the same claim.
  mine, theirs = words_of(a.text), words_of(b.text)
  return longest_run(mine, theirs) >= min(_RUN, max(len(mine), 1))


def _deletions(
  nla: Any,
  reads: Sequence[Read],
  claims: Sequence[Sequence[Claim]],
  baseline: float,
  options: Options,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """[all claims] each: what the deletion costs, that less random deletions, the whole text's FVE, and the SD."""
  # 1. Every text is read once: the whole, without each claim, and without random words.
  texts, targets, places = [], [], []
  for row, (one, several) in enumerate(zip(reads, claims)):
    random = np.random.default_rng((options.seed, row))
    for claim in several:
      drawn = [without_random(one.text, claim, random) for _ in range(options.resamples)]
      written = [one.text, without(one.text, claim), *(text for text in drawn if text is not None)]
      places.append((len(texts), len(written)))
      texts += written
      targets += [one.activation] * len(written)
  if not texts:
    return (np.zeros(0),) * 4

  distinct = list(dict.fromkeys(texts))
  rebuilt = nla.reconstruct([text or None for text in distinct], batch=options.batch)
  index = {text: i for i, text in enumerate(distinct)}
  errors = np.asarray(fve.mse_nrm(rebuilt[[index[text] for text in texts]], np.stack(targets)))

  # 2. What each claim is worth, beside other words of its text.
  found = []
  for start, n in places:
    whole, gone, *others = (errors[start : start + n] / baseline).tolist()
    random = np.array(others) - whole
    excess = gone - whole - random.mean() if others else np.nan
    spread = random.std(ddof=1) if len(others) > 1 else np.nan
    found.append((gone - whole, excess, 1 - whole, spread))
  return tuple(np.array(column, float) for column in zip(*found))


def _logprobs(nla: Any, reads: Sequence[Read], claims: Sequence[Sequence[Claim]]) -> np.ndarray:
  """[all claims] the AV's mean log-probability of each claim's tokens."""
  pair, rows = nla.pair, [i for i, several in enumerate(claims) if several]
  if not rows:
    return np.zeros(0)

  texts = [reads[i].text for i in rows]
  tokens = encode_answers(pair.prompts, pair.tokenizer, texts).tokens
  vectors = np.stack([reads[i].activation for i in rows]).astype(np.float32)
  scores = score(nla, vectors, tokens)

  found = []
  for i, of_row in zip(rows, scores):
    answer = wrap_explanation(reads[i].text)
    begin = answer.index(reads[i].text)
    _, offsets = encode_places(pair.tokenizer, answer)

    for claim in claims[i]:
      start, end = claim.span[0] + begin, claim.span[1] + begin
      # A token that is mostly blank and reaches into the claim is its first one.
      mine = [j for j, (a, b) in enumerate(offsets) if a < end and b > start]
      found.append(np.mean(of_row[mine]) if mine else np.nan)
  return np.array(found, float)


def score(nla: Any, vectors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
  """[n, length] the AV's log-probabilities of answers, given activations, a few shapes at a time."""
  found = []
  program = jax.jit(nla.pair.score_answers)
  for start, size in row_batches(len(tokens), 32):
    # The last batch is filled up with copies, so that few shapes are compiled.
    index = np.minimum(np.arange(start, start + size), len(tokens) - 1)
    rows = sharding.shard_rows((vectors[index], tokens[index]))
    logprob = sharding.fetch(program(nla.av_params, *rows).logprob)
    found.append(logprob[: min(size, len(tokens) - start)])
  return np.concatenate(found)
