"""A pair that answers at once and without a device: what a test of the server needs of one, and a gate to hold it."""

import threading

import numpy as np

from nla_jax.autoencoder.explanation import Explanation
from nla_jax.interop.base_models.random_model import byte_tokenizer
from nla_jax.reading.inputs import tokens_of
from nla_jax.serving.reader import Reader

WIDTH, LAYER, BASELINE = 8, 3, 0.5


class KnownReader(Reader):
  """Explains a vector by the index of its largest number; an activation of the target is its token's id in unary.

  Attributes:
    gate: while it is closed, every batch that has begun with it waits after its first words.
    batches: (rows, draw) of each batch that was begun.
    entered: set when a batch has begun.
  """

  width, layer, baseline, temperature, max_new_tokens = WIDTH, LAYER, BASELINE, 1.0, 100

  def __init__(self):
    self.tokenizer = byte_tokenizer()
    self.name, self.whole, self.base = "known", True, "random:tiny"
    self.gate, self.entered, self.batches = threading.Event(), threading.Event(), []
    self.gate.set()

  def facts(self):
    return {
      "verbalizer_model": self.name,
      "reconstructor_available": True,
      "source_model": self.base,
      "d_model": WIDTH,
      "extraction_layer": LAYER,
      "completion_available": True,
      "num_cuda_devices": 0,
      "baseline": BASELINE,
    }

  def tokens(self, what, **options):
    return tokens_of(self.tokenizer, what, **options)

  def activations(self, ids, positions):
    return np.array([np.eye(WIDTH)[ids[i] % WIDTH] * 2 for i in positions], np.float32)

  def explain(self, rows, draw, watch):
    # A test may close another gate for the batches after this one.
    gate = self.gate
    self.batches.append((list(rows), draw))
    self.entered.set()
    while True:
      for i, row in enumerate(rows):
        watch(i, f"<explanation>\nunit {row.vector.argmax()}")
      if gate.wait(0.01):
        break
    return [self.explained(row) for row in rows]

  def explained(self, row):
    """A vector whose largest number stands first has no explanation."""
    unit = int(row.vector.argmax())
    if unit == 0:
      return Explanation(None, None, None, None, "<explanation>\nunit", "the answer hit the cap")
    # Later samples are worse, so that their order shows.
    error = 0.1 * (1 + row.stream)
    fve = 1 - error / BASELINE
    text = f"unit {unit} of stream {row.stream}"
    answer = f"<explanation>\n{text}\n</explanation>"
    return Explanation(text, 1 - error / 2, error, fve, answer, None)

  def score(self, text, vector):
    return 0.25, 0.875

  def complete(self, ids, draw, show=None):
    # An emoji: four tokens that share a character.
    written = self.tokenizer.encode("😀!?", add_special_tokens=False)[: draw.max_new_tokens]
    # While the gate is closed the model stops within the emoji, and then before the last token.
    for n in (2, len(written) - 1):
      while show is not None:
        show(written[:n])
        if self.gate.wait(0.01) or n == 2:
          break
    return written

  def steer(self, what, position, edit, options):
    return {"what": what, "position": position, "edit": edit, **options}

  @property
  def nla(self):
    """Of a reading, only the target's name is asked."""
    return self
