"""What an evaluation looks at, drawn once: held-out rows, their explanations, and the training rows of controls."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.turns import opening
from nla_jax.bucket import Place
from nla_jax.data.positions import words_begin
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.errors import NLAError
from nla_jax.evaluation.sae import files
from nla_jax.evaluation.settings import Settings
from nla_jax.progress import say

_TRAINING_ROWS = 50_000  # most training activations that controls look at
_TRAINING_SPLITS = ("av_sft", "ar_sft", "rl")


class Explanations(NamedTuple):
  """Explanations of n vectors.

  Attributes:
    texts: [n]; None where the answer does not parse or hit the cap, which the AR reads as an empty explanation.
    lengths: [n] tokens of each answer.
  """

  texts: list[str | None]
  lengths: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
  """The held-out rows of an evaluation with all that its suites share; nothing of it is drawn or read twice.

  Attributes:
    nla: the pair that is evaluated.
    before_rl: the pair before RL, or None.
    store: the activation store.
    texts: the teacher's text by store row, or None.
    rows: [n] store rows that are evaluated, in random order.
    activations: [n, d] of these rows.
    documents: [n] the document of each row; intervals resample groups of documents.
    positions: [n] token position of each row in its document.
    training_rows: [m] store rows that controls may look at; m may be 0.
    training_activations: [m, d] of these rows.
    baseline: error of the best constant answer on `activations`.
    settings: of this evaluation.
    folder: in which what is fitted on training rows is kept; or None.
    on_explained: called with the number of explanations after each batch.
  """

  nla: NLA
  before_rl: NLA | None
  store: Store
  texts: dict[int, str] | None
  rows: np.ndarray
  activations: np.ndarray
  documents: list[StoredDocument]
  positions: np.ndarray
  training_rows: np.ndarray
  training_activations: np.ndarray
  baseline: float
  settings: Settings
  folder: Place | None = None
  on_explained: Callable[[int], None] = lambda n: None

  @property
  def seed(self) -> int:
    """Of every draw of this evaluation."""
    return self.settings.seed

  @property
  def batch(self) -> int:
    """Explanations sampled at once."""
    return self.settings.batch

  @property
  def n(self) -> int:
    """Number of rows that are evaluated."""
    return len(self.rows)

  @property
  def n_constant(self) -> int:
    """Number of explanations sampled of a vector that is the same for every row."""
    return min(self.n, self.batch)

  @functools.cached_property
  def kept(self) -> dict[Any, Any]:
    """What one suite computed for another, by keys of their own."""
    return {}

  @functools.cached_property
  def groups(self) -> np.ndarray:
    """[n] the document group of each row."""
    return np.array([one.group for one in self.documents])

  @functools.cached_property
  def sources(self) -> np.ndarray:
    """[n] name of the corpus of each row; "" everywhere in a store of one corpus."""
    return np.array([one.source for one in self.documents])

  @functools.cached_property
  def words_before(self) -> np.ndarray:
    """[n] position of each row as tokens of the text: in a conversation, from behind what its template begins with."""
    begin = opening(self.nla.pair.tokenizer)
    return self.positions - np.array([words_begin(one.tokens, begin) for one in self.documents])

  @functools.cached_property
  def fixed_critic(self) -> NLA | None:
    """The pair before RL, whose AR has not learned from this AV's words.

    None without one, or where its AR is the evaluated one.
    """
    before = self.before_rl
    if before is None or _same_params(before.ar_params, self.nla.ar_params):
      return None
    return before

  @functools.cached_property
  def last_tokens(self) -> np.ndarray:
    """[n] the token at each row's position: the last one that the target had read."""
    return _tokens_at(self.documents, self.positions)

  @functools.cached_property
  def training_last_tokens(self) -> np.ndarray:
    """[m] the same of the training rows."""
    rows = self.training_rows
    return _tokens_at(_documents(self.store, rows), self.store.read("position", rows))

  @functools.cached_property
  def other_rows(self) -> np.ndarray:
    """[n] for each row the index of another one, of the same source and another group wherever there is one."""
    # Text of another kind would be told apart at a glance, and the control would be too easy to pass.
    names, counts = np.unique(self.sources, return_counts=True)
    if counts.min() < 2:
      return other_rows(self.n, self.groups, self.seed)

    other = np.empty(self.n, np.int64)
    for name in names:
      mine = np.flatnonzero(self.sources == name)
      other[mine] = mine[other_rows(len(mine), self.groups[mine], self.seed)]
    return other

  @functools.cached_property
  def teacher_texts(self) -> list[str] | None:
    """The teacher's text of each row; None without `texts`."""
    return None if self.texts is None else [self.texts[int(row)] for row in self.rows]

  @functools.cached_property
  def sampled(self) -> Explanations:
    """The AV's explanations, sampled at its temperature."""
    return self.explain(self.activations, 0)

  @functools.cached_property
  def greedy(self) -> Explanations:
    """The AV's explanations with the likeliest token at every step."""
    return self.explain(self.activations, 1, greedy=True)

  @functools.cached_property
  def sampled_before_rl(self) -> Explanations:
    """The explanations of the AV before RL, from the same random numbers as `sampled`."""
    return self.explain(self.activations, 0, nla=self.before_rl)

  @functools.cached_property
  def rebuilt(self) -> np.ndarray:
    """[n, d] reconstructions from the sampled explanations."""
    return self.nla.reconstruct(self.sampled.texts, batch=self.batch)

  def explain(
    self, vectors: np.ndarray, number: int, *, nla: NLA | None = None, greedy: bool = False
  ) -> Explanations:
    """Explains vectors [k, d].

    Args:
      vectors: what is injected.
      number: which draw of this evaluation it is; equal numbers draw from equal random numbers. 0 and 1 are the
        subject's own, controls take the next.
      nla: whose AV writes; the evaluated one where None.
      greedy: the likeliest token at every step instead of a draw.
    """
    nla = nla or self.nla

    # The number, not the order of calls, sets the randomness: a suite more changes no other suite's explanations.
    found = nla.pair.sample_explanations(
      nla.av_params,
      vectors,
      jax.random.fold_in(jax.random.key(self.seed), number),
      batch=self.batch,
      greedy=greedy,
      on_batch=self.on_explained,
    )
    return Explanations(*found)

  def explain_constant(self, vector: np.ndarray, number: int) -> list[str | None]:
    """[n] explanations of one vector [d]: one batch is sampled and serves all rows in turn."""
    # A constant vector needs no explanation for each row; one batch shows how its explanations vary.
    k = self.n_constant
    texts = self.explain(np.repeat(vector[None], k, axis=0), number).texts
    return [texts[i % k] for i in range(self.n)]

  def errors(self, reconstructions: np.ndarray) -> np.ndarray:
    """[n] mse_nrm of reconstructions [n, d] of these rows."""
    return np.asarray(fve.mse_nrm(reconstructions, self.activations))

  def score(self, texts: Sequence[str | None], nla: NLA | None = None) -> np.ndarray:
    """[n] mse_nrm of what an AR rebuilds from texts of these rows; of the evaluated pair's where `nla` is None."""
    return self.errors((nla or self.nla).reconstruct(texts, batch=self.batch))


def draw_subject(
  nla: NLA,
  store: Store,
  *,
  texts: dict[int, str] | None,
  before_rl: NLA | None,
  folder: Place | None = None,
  **settings,
) -> Subject:
  """Draws held-out rows, and the training rows; `folder` as of `Subject`, other arguments as of `harness.evaluate`.

  Raises:
    NLAError: the store is of another width or layer than the pair, or has no split `held_out`; or the settings name a
      sparse autoencoder that is none of this block.
  """
  chosen_settings = Settings(**settings)
  _check(nla, store)
  if chosen_settings.sae:
    # A folder that cannot be read is told before the first explanation.
    files.load(chosen_settings.sae, width=store.d, layer=nla.pair.layer)

  # One generator for both, in this order: numbers of earlier evaluations depend on it.
  random = np.random.default_rng(chosen_settings.seed)
  chosen = random.permutation(store.rows("held_out"))[: chosen_settings.rows]

  if len(chosen) < chosen_settings.rows:
    say(
      f"eval: {len(chosen)} activations are held out, fewer than the {chosen_settings.rows} asked for"
    )

  # Sorted, so that the store reads them in runs.
  splits = [name for name in _TRAINING_SPLITS if name in store.documents.splits]
  every = np.concatenate([np.empty(0, np.int64), *map(store.rows, splits)])
  training = np.sort(random.permutation(every)[:_TRAINING_ROWS])

  activations = store.read("activations", chosen)
  return Subject(
    nla=nla,
    before_rl=before_rl,
    store=store,
    texts=texts,
    rows=chosen,
    activations=activations,
    documents=_documents(store, chosen),
    positions=store.read("position", chosen),
    training_rows=training,
    training_activations=store.read("activations", training),
    baseline=fve.baseline_variance(activations),
    settings=chosen_settings,
    folder=folder,
  )


def other_rows(n: int, groups: np.ndarray, seed: int) -> np.ndarray:
  """Chooses for each row another one, of another document group wherever there is one: [n] int, a permutation."""
  order = np.random.default_rng(seed).permutation(n)
  order = order[np.argsort(groups[order], kind="stable")]

  # Rows of a group are adjacent now: a shift by the largest group leaves every group, unless it is most of all.
  largest = max(np.unique(groups, return_counts=True)[1])
  shift = largest if 2 * largest <= n else max(n // 2, 1)
  other = np.empty(n, np.int64)
  other[order] = np.roll(order, -shift)
  return other


def _documents(store: Store, rows: np.ndarray) -> list[StoredDocument]:
  return [store.documents[int(index)] for index in store.read("document", rows)]


def _tokens_at(documents: list[StoredDocument], positions: np.ndarray) -> np.ndarray:
  return np.array([one.tokens[position] for one, position in zip(documents, positions)])


def _same_params(a: Any, b: Any) -> bool:
  """Whether two trees of parameters hold the same numbers."""
  if a is b:
    return True
  if jax.tree.structure(a) != jax.tree.structure(b):
    return False
  alike = jax.tree.map(_same, a, b)
  return all(jax.tree.leaves(alike))


def _same(a, b) -> bool:
  return a is b or (a.shape == b.shape and bool(_equal(a, b)))


@jax.jit
def _equal(a, b):
  return jnp.array_equal(a, b)


def _check(nla: NLA, store: Store) -> None:
  width, layer = nla.pair.verbalizer.architecture.d_model, nla.pair.layer
  if store.d != width:
    raise NLAError(
      f"the store's activations are {store.d} wide, this pair's model is "
      f"{width} wide: they do not belong together"
    )
  if store.manifest.get("layer", layer) != layer:
    raise NLAError(
      f"the store holds the output of block {store.manifest['layer']}, this pair explains block "
      f"{layer}: extract that block, or take the pair of the other"
    )
