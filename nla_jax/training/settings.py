"""The settings of an RL run (`config.rl`): which of them cannot work, and what follows from them."""

import math

from nla_jax.errors import NLAError
from nla_jax.models.lora import Lora
from nla_jax.parallel import sharding
from nla_jax.training import losses, rewards

AR_TEXTS = ("all", "best")
REWORD_BY = ("order", "synonyms", "both")
KEEPS = ("last", "best")
KEEP_BY = ("fve_fixed", "fve_held_out")


def check_settings(rl) -> None:
  """Raises NLAError for settings that cannot work, before anything is loaded."""
  _check_ranges(rl)
  _check_divisions(rl)
  _check_choices(rl)
  _check_together(rl)


def _check_ranges(rl) -> None:
  """Numbers that have a least value, or a largest."""
  if not 0 < rl.temperature < math.inf:
    raise NLAError(
      f"config.rl.temperature={rl.temperature:g}: it divides the logits, so expected more than 0 and finite"
    )
  if rl.group < 2 and rl.steps > rl.ar_steps:
    raise NLAError(
      f"config.rl.group={rl.group}: an advantage relative to the group needs at least 2 explanations"
    )
  if not 0 <= rl.reword <= 1:
    raise NLAError(f"config.rl.reword={rl.reword:g}: expected a share of the explanations, 0 to 1")
  if not 0 <= rl.false_claim_cost < math.inf:
    raise NLAError(
      f"config.rl.false_claim_cost={rl.false_claim_cost:g}: expected a reward that is lost, 0 or more"
    )
  counts = {
    "epochs": rl.epochs,
    "minibatches": rl.minibatches,
    "av.accumulate": rl.av.accumulate,
    "ar.accumulate": rl.ar.accumulate,
  }
  for name, n in counts.items():
    if n < 1:
      raise NLAError(f"config.rl.{name}={n}: at least 1 is needed")

  if rl.extremes % 2 or not 0 <= rl.extremes <= rl.group:
    raise NLAError(
      f"config.rl.extremes={rl.extremes}: expected an even number up to config.rl.group={rl.group}, or 0 for all"
    )


def _check_divisions(rl) -> None:
  """Numbers that have to divide: every minibatch and every micro-batch is compiled for one shape."""
  samples, learned = rl.activations * rl.group, learned_samples(rl)
  if learned % rl.minibatches:
    raise NLAError(
      f"config.rl.minibatches={rl.minibatches} does not divide the {learned} samples "
      "of a step that the AV learns from (activations × group, or × extremes)"
    )
  for name, n in (("av", learned // rl.minibatches), ("ar", samples)):
    if n % rl[name].accumulate:
      raise NLAError(
        f"config.rl.{name}.accumulate={rl[name].accumulate} does not divide the {n} explanations of an update"
      )

  if rl.ar_texts == "best" and rl.activations % rl.ar.accumulate:
    raise NLAError(
      f"config.rl.ar.accumulate={rl.ar.accumulate} does not divide the {rl.activations} explanations that the AR "
      "learns from with config.rl.ar_texts=best"
    )


def _check_choices(rl) -> None:
  """Choices out of a few."""
  choices = {
    "reward": rewards.REWARDS,
    "kl": losses.KL_KINDS,
    "advantage": losses.ADVANTAGES,
    "average": losses.AVERAGES,
    "loss": losses.LOSSES,
    "ar_texts": AR_TEXTS,
    "reword_by": REWORD_BY,
    "keep": KEEPS,
    "keep_by": KEEP_BY,
  }
  for name, known in choices.items():
    if rl[name] not in known:
      raise NLAError(f"config.rl.{name}={rl[name]!r}: expected one of {', '.join(known)}")


def _check_together(rl) -> None:
  """Settings that mean nothing by themselves, or not with one another."""
  if rl.loss == "cispo" and rl.dual_clip:
    raise NLAError(
      f"config.rl.dual_clip={rl.dual_clip} bounds the ppo loss: leave it at 0 with config.rl.loss=cispo"
    )
  if rl.kl_taper < 0:
    raise NLAError(f"config.rl.kl_taper={rl.kl_taper}: expected tokens, or 0 for none")
  if rl.watch_every < 0:
    raise NLAError(f"config.rl.watch_every={rl.watch_every}: expected steps, or 0 for never")
  if rl.watch_every and rl.watch_rows < 2:
    raise NLAError(f"config.rl.watch_rows={rl.watch_rows}: FVE needs at least 2 activations")
  if rl.keep == "best" and not rl.watch_every:
    raise NLAError(
      "config.rl.keep=best chooses among the steps that are watched: set config.rl.watch_every as well"
    )


def adapters(lora) -> Lora | None:
  """How the AV and the AR are adapted, from the config's `lora`; None where every weight is trained."""
  return Lora(lora.rank, lora.alpha, tuple(lora.targets)) if lora.rank else None


def policy_settings(rl) -> losses.PolicySettings:
  """What the policy loss needs of `config.rl`, as values that cannot change after compilation."""
  return losses.PolicySettings(
    clip=rl.clip,
    clip_high=rl.clip_high,
    dual_clip=rl.dual_clip,
    importance_cap=rl.importance_cap,
    kl_kind=rl.kl,
    entropy_weight=rl.entropy_weight,
    average=rl.average,
    loss=rl.loss,
    kl_taper=rl.kl_taper,
    drop_empty=rl.drop_constant,
  )


def learned_samples(rl) -> int:
  """How many of a step's explanations the AV learns from."""
  return rl.activations * (rl.extremes or rl.group)


def teacher_rows(rl) -> int:
  """How many of the teacher's texts a step's AR batch holds: the share `rl.ar_teacher` of the explanations.

  The number is rounded up so that every micro-batch has the same number and the devices can share each.
  """
  if not rl.ar_teacher:
    return 0
  of_micro_batch = round(rl.ar_teacher * rl.activations * rl.group / rl.ar.accumulate)
  return rl.ar.accumulate * sharding.round_up_rows(max(of_micro_batch, 1))


def host_seed(seed: int, step: int) -> int:
  """The seed of a step's draws on the host (cuts of texts, order of minibatches), from the run's seed."""
  # The factor is larger than the steps of any run, so two runs with neighbouring seeds share no draw.
  return seed * 1_000_003 + step
