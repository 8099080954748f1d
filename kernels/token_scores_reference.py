"""What `token_scores.py` computes, in the plainest form: the whole array of logits at once, in any float dtype."""

import jax
import jax.numpy as jnp


def token_scores(hidden, matrix, targets):
  """Log-probability of each target and entropy of each row's distribution (nats), differentiable.

  Args:
    hidden: [n, d_model] floating point; the results have its dtype.
    matrix: [vocabulary, d_model] unembedding of the same dtype.
    targets: [n] integers in [0, vocabulary).

  Returns:
    logprob [n], entropy [n].
  """
  logprobs = jax.nn.log_softmax(jnp.dot(hidden, matrix.T, precision="highest"))  # [n, vocabulary]
  chosen = jnp.take_along_axis(logprobs, targets[:, None], axis=1)[:, 0]
  return chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=1)
