"""AdamW on float32 masters, behind a guard that lets no non-finite or exploded gradient touch the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int32

from nla_jax.errors import NLAError


class TrainState(NamedTuple):
  """Parameters and what trains them.

  Attributes:
    params: float32 masters.
    opt_state: optax's state.
    step: updates attempted.
    skipped: updates skipped for their gradients, in all.
    skipped_in_a_row: updates skipped since the last one that was made.
  """

  params: Any
  opt_state: Any
  step: Int32[jax.Array, ""]
  skipped: Int32[jax.Array, ""]
  skipped_in_a_row: Int32[jax.Array, ""]


def learning_rate(settings, total_steps: int) -> optax.Schedule:
  """The schedule: linear warm-up, then a cosine down to `lr_end`, or a constant where `schedule` is `constant`.

  Args:
    settings: a config's `optimizer`.
    total_steps: updates in all.

  Raises:
    NLAError: the schedule is not known.
  """
  # A short run still reaches its peak rate before it ends.
  warmup = min(settings.warmup, max(total_steps - 1, 0))

  if settings.schedule == "constant":
    constant = optax.schedules.constant_schedule(settings.lr)
    if not warmup:
      return constant
    rise = optax.schedules.linear_schedule(0.0, settings.lr, warmup + 1)
    return optax.schedules.join_schedules([rise, constant], [warmup + 1])

  if settings.schedule != "cosine":
    raise NLAError(f"schedule {settings.schedule!r} is not known; use cosine or constant")
  # It begins at lr / (warmup + 1): a first update at rate 0 would change nothing.
  return optax.schedules.warmup_cosine_decay_schedule(
    settings.lr / (warmup + 1), settings.lr, warmup, max(total_steps, warmup + 1), settings.lr_end
  )


def make_optimizer(settings, total_steps: int) -> optax.GradientTransformation:
  """AdamW (betas 0.9 and 0.95, eps 1e-8) with a config's `optimizer` settings; norms and biases do not decay."""
  return optax.adamw(
    learning_rate(settings, total_steps),
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    weight_decay=settings.weight_decay,
    mask=_decays,
  )


def _decays(params):
  """True for matrices, False for norms and biases."""

  def is_matrix(path, _) -> bool:
    # By name, not by the number of axes: norms and biases that are stacked by layer have two axes as well.
    return not path[-1].key.endswith(("norm", "bias"))

  return jax.tree_util.tree_map_with_path(is_matrix, params)


def create_state(params, optimizer: optax.GradientTransformation) -> TrainState:
  """The state before the first update."""
  zero = jnp.zeros((), jnp.int32)
  return TrainState(params, optimizer.init(params), zero, zero, zero)


def guarded_update(
  state: TrainState,
  grads,
  optimizer: optax.GradientTransformation,
  clip_norm: float,
  skip_above: float = 0.0,
) -> tuple[TrainState, Float[jax.Array, ""]]:
  """One update, or none where the gradient's norm is not finite or is above `skip_above`.

  Args:
    state: before the update.
    grads: a tree like the parameters.
    optimizer: from `make_optimizer`.
    clip_norm: global norm to which the gradient is scaled down where it is larger.
    skip_above: norm above which the update is skipped and counted; 0 is no such bound.

  Returns:
    the state, and the norm before clipping.
  """
  # 1. Whether the gradient is sound. One NaN or infinity in it makes the norm so.
  norm = optax.global_norm(grads)
  sound = jnp.isfinite(norm) & (norm <= skip_above if skip_above else True)

  # 2. The clipped update, made in any case.
  factor = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
  updates, opt_state = optimizer.update(
    jax.tree.map(lambda g: g * factor, grads), state.opt_state, state.params
  )

  # 3. The update or what was there, chosen entry by entry, which XLA does in place. A `lax.cond` holds copies
  # (0.66 GiB of a 0.5B model's 5.5 on a TPU).
  params, opt_state = jax.tree.map(
    lambda new, old: jnp.where(sound, new, old),
    (optax.apply_updates(state.params, updates), opt_state),
    (state.params, state.opt_state),
  )

  # 4. The counts of what was skipped.
  skipped = (~sound).astype(jnp.int32)
  state = TrainState(
    params,
    opt_state,
    state.step + 1,
    state.skipped + skipped,
    (state.skipped_in_a_row + 1) * skipped,
  )
  return state, norm


def check_guard(state: TrainState, limit: int, what: str) -> None:
  """Raises NLAError after `limit` skipped updates in a row; `what` names the run and the model in the message."""
  if int(state.skipped_in_a_row) >= limit:
    raise NLAError(
      f"{what}: {limit} updates in a row had non-finite or exploded gradients at step "
      f"{int(state.step)}; the weights are untouched by them. Lower the learning rate, or look for "
      "damaged activations"
    )
