"""Vectors put into the residual stream: the one mechanism behind reading a vector in a prompt and steering a model.

An injection has a slot, vectors, and the block after which it happens; −1 is the embedding.

  the AV, as the reference trains it   replace, after −1
  the AV, as other trainers do         add (norm-matched), after block 1
  steering the target                  add with a strength, or turn, after block K
"""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Float

from nla_jax.arrays import Array, halved_to_one

EMBEDDING = -1
REPLACE, ADD, TURN = "replace", "add", "turn"


@struct.dataclass
class Injection:
  """One vector for each row of a batch.

  Attributes:
    slot: True at the positions that take the row's vector: one, several, or all of them.
    vectors: what the residual becomes (`replace`), the direction that is added (`add`), or the direction that the
      residual takes (`turn`).
    strength: not of `replace`: length of what is added or put there, in lengths of the residual that was there; None
      is 1.
    after: the block whose output changes, 0-based; −1 is the embedding, after the family's embedding scale.
    mode: `replace`, `add` or `turn`.
  """

  slot: Bool[Array, "batch length"]
  vectors: Float[Array, "batch d_model"]
  strength: Float[Array, " batch"] | None = None
  after: int = struct.field(pytree_node=False, default=EMBEDDING)
  mode: str = struct.field(pytree_node=False, default=REPLACE)

  def apply(self, x: Float[Array, "batch length d_model"]) -> Float[Array, "batch length d_model"]:
    """The residual `x` with the vectors at their slots."""
    if self.mode == REPLACE:
      vectors = self.vectors.astype(x.dtype)[:, None]
      return jnp.where(self.slot[..., None], vectors, x)
    return self._at_its_length(x)

  def _at_its_length(self, x):
    full = x.astype(jnp.float32)
    # The epsilon stands inside the root, so that a zero residual has a finite gradient.
    length = jnp.sqrt(jnp.sum(full * full, axis=-1, keepdims=True) + 1e-12)
    v = halved_to_one(jnp.asarray(self.vectors, jnp.float32))
    v = v / jnp.sqrt(jnp.sum(v * v, axis=-1, keepdims=True) + 1e-12)
    if self.strength is not None:
      v = v * self.strength[:, None]

    scaled = length * v[:, None]
    changed = scaled if self.mode == TURN else full + scaled
    return jnp.where(self.slot[..., None], changed, full).astype(x.dtype)
