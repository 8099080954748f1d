"""What `token_scores.py` computes, in the plainest form: the whole array of logits at once, in any float dtype."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from nla_jax.arrays import Array


def token_scores(
  hidden: Float[Array, "n d_model"],
  matrix: Float[Array, "vocabulary d_model"],
  targets: Integer[Array, " n"],
) -> tuple[Float[jax.Array, " n"], Float[jax.Array, " n"]]:
  """Log-probability of each target and entropy of each row's distribution (nats), differentiable.

  Args:
    hidden: of any floating dtype, which the results have as well.
    matrix: the unembedding, of the same dtype.
    targets: in [0, vocabulary).

  Returns:
    log-probabilities and entropies.
  """
  logprobs = jax.nn.log_softmax(jnp.dot(hidden, matrix.T, precision="highest"))  # [n, vocabulary]
  chosen = jnp.take_along_axis(logprobs, targets[:, None], axis=1)[:, 0]
  return chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=1)
