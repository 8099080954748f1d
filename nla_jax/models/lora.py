"""LoRA: a low-rank change A · B · alpha / rank of a block's matrices (Hu et al., arXiv:2106.09685)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from nla_jax.arrays import Array

TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class Lora:
  """The settings of an adapter.

  Attributes:
    rank: columns of A and rows of B.
    alpha: the change is A · B · alpha / rank.
    targets: which of the block's matrices are changed, out of `TARGETS`.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...] = TARGETS

  @property
  def scale(self) -> float:
    """The factor on A · B."""
    return self.alpha / self.rank


def delta(
  lora: Lora, a: Float[Array, "... rank"], b: Float[Array, "rank ..."]
) -> Float[Array, "..."]:
  """The change of one layer's matrix, float32, given A [*inputs, rank] and B [rank, *outputs]: [*inputs, *outputs]."""
  # Accelerators round the operands of a float32 product unless they are told not to.
  product = jnp.tensordot(
    a.astype(jnp.float32),
    b.astype(jnp.float32),
    axes=1,
    precision=jax.lax.Precision.HIGHEST,
  )
  return product * lora.scale
