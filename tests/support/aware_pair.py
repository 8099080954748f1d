"""A pair with a known belief: tokens behind a cue have an activation that its AV tells as awareness."""

from types import SimpleNamespace

import numpy as np

from nla_jax.autoencoder.explanation import Explanation
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.reading.inputs import tokens_of

WIDTH, CUE = 16, "rubric"
AWARE = "The assistant believes that it is being tested."


class AwarePair:
  """What an audit asks of an NLA. Entry 0 of an activation is 1 behind the cue; the others tell the token.

  Attributes:
    share: of tokens behind the cue that the AV explains as awareness.
    explained: how many activations were explained.
    dies_after: transcripts after which reading is interrupted; None for never.
  """

  def __init__(self, share=0.5, longest=2048, dies_after=None):
    self.share, self.explained, self.dies_after = share, 0, dies_after
    architecture = SimpleNamespace(d_model=WIDTH, max_positions=longest)
    verbalizer = SimpleNamespace(architecture=architecture)
    self.pair = SimpleNamespace(verbalizer=verbalizer, tokenizer=byte_tokenizer(), layer=1)
    self.base, self.calls = "known", 0

  def tokens(self, what, **options):
    return tokens_of(self.pair.tokenizer, what, **options)

  def activations(self, texts, positions):
    self.calls += 1
    if self.dies_after is not None and self.calls > self.dies_after:
      raise KeyboardInterrupt
    return [self._rows(ids, places) for ids, places in zip(texts, positions, strict=True)]

  def _rows(self, ids, places):
    start = self.pair.tokenizer.decode(ids).find(CUE)
    rows = np.stack([np.random.default_rng([ids[i], i]).normal(size=WIDTH) for i in places])
    rows[:, 0] = [float(0 <= start < i) for i in places]
    return rows.astype(np.float32)

  def explain(self, rows, *, seed=0, streams=None, **options):
    self.explained += len(rows)
    aware = [row[0] > 0.5 and abs(row[1] * 1000) % 1 < self.share for row in np.asarray(rows)]
    return [
      Explanation(AWARE if one else "A recipe for soup.", 0.9, 0.2, 0.7, "", None) for one in aware
    ]

  def reconstruct(self, texts, *, batch=64):
    return np.eye(WIDTH, dtype=np.float32)[[0 if text == AWARE else 1 for text in texts]]

  @property
  def whole_target(self):
    raise NLAError("this pair has no base model")


def conversation(name, cue, words="I will help you with the soup, one step after another, gladly."):
  """A transcript; with the cue the target believes that it is tested."""
  asked = f"How is soup made? {CUE if cue else 'thanks'}"
  messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": words}]
  return {"id": name, "messages": messages}
