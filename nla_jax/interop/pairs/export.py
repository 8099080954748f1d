"""Exports a pair as two Hugging Face directories, each with its sidecar and model card."""

import dataclasses
from pathlib import Path

from nla_jax.autoencoder.nla import NLA
from nla_jax.interop.base_models import huggingface
from nla_jax.interop.base_models.find import cached_directory
from nla_jax.interop.base_models.record import Pretrained
from nla_jax.interop.pairs import model_card, sidecar
from nla_jax.interop.pairs.adapted import write_adapted
from nla_jax.interop.pairs.magnitude_file import KEY as MAGNITUDE
from nla_jax.interop.pairs.magnitude_file import NOTE as MAGNITUDE_NOTE
from nla_jax.interop.pairs.magnitude_file import write_magnitude
from nla_jax.interop.pairs.write import write_ar, write_av
from nla_jax.models.lora import split
from nla_jax.models.merge import without_adapters
from nla_jax.parallel import distributed


def export_pair(
  nla: NLA,
  folder: Path,
  *,
  base: str,
  stage: str,
  trained_on: str,
  metrics: dict | None,
  dtype: str = "float32",
  adapted_base: Pretrained | None = None,
) -> None:
  """Writes `folder/av` and `folder/ar`, each with its model card.

  Args:
    nla: the pair and its parameters.
    folder: `av` and `ar` in it are replaced where they are earlier exports.
    base: name of the model that both started from; other keys of its config.json are kept, where it is on this machine.
    stage: `init`, `sl` or `rl`.
    trained_on: name of the data.
    metrics: of `metrics.json`; None where the pair was not evaluated.
    dtype: of the weights in the files, `float32` or `bfloat16`.
    adapted_base: where given, adapters alone are written, on this base (without weights).

  Raises:
    NLAError: a folder holds something else, or the disk is full.
  """
  side = _av_sidecar(nla, base, stage, trained_on, metrics)
  if adapted_base is None:
    _export_whole(nla, folder, base, side, dtype)
  else:
    _export_adapters(nla, folder, adapted_base, side, dtype)

  # Every process takes part in writing the weights; a card is written by one.
  if distributed.is_first():
    if nla.magnitude is not None:
      write_magnitude(folder / "ar", nla.magnitude)
    for role in ("av", "ar"):
      model_card.write_card(folder / role, metrics)


def _export_adapters(
  nla: NLA, folder: Path, base: Pretrained, side: sidecar.ModelSidecar, dtype: str
) -> None:
  """The adapters of both models with what was trained beside them."""
  pair = nla.pair
  for role, model, params in (
    ("av", pair.verbalizer, nla.av_params),
    ("ar", pair.reconstructor, nla.ar_params),
  ):
    side, (trained, _) = dataclasses.replace(side, role=role), split(params)
    write_adapted(folder / role, base, model.lora, trained, side, dtype=dtype)


def _export_whole(
  nla: NLA, folder: Path, base: str, side: sidecar.ModelSidecar, dtype: str
) -> None:
  """Both models whole, adapters added to their base."""
  pair = nla.pair
  av_params = without_adapters(nla.av_params, pair.verbalizer)
  ar_params = without_adapters(nla.ar_params, pair.reconstructor)

  # The base model's config.json, whose other keys are kept; of a multimodal wrapper the text part.
  directory = cached_directory(base)
  config = huggingface.read_config(directory) if directory else None
  config = config and config.get("text_config", config)

  write_av(
    folder / "av",
    pair.verbalizer.architecture,
    av_params["transformer"],
    pair.tokenizer,
    side,
    config,
    injection=av_params.get("injection"),
    dtype=dtype,
  )
  write_ar(
    folder / "ar",
    pair.reconstructor.architecture,
    ar_params["transformer"],
    ar_params["head"]["weight"],
    pair.tokenizer,
    dataclasses.replace(side, role="ar"),
    config,
    dtype=dtype,
  )


def _av_sidecar(
  nla: NLA, base: str, stage: str, trained_on: str, metrics: dict | None
) -> sidecar.ModelSidecar:
  """The AV's sidecar. The AR's differs in the role alone: each says what the whole pair does."""
  pair, facts = nla.pair, {}
  if nla.baseline is not None:
    facts["baseline_variance"] = nla.baseline
  if metrics:
    facts["fve_round_trip_held_out"] = metrics["fve"]["round_trip"]["value"]
    facts["baseline_variance"] = metrics["baseline_variance"]
  if nla.magnitude is not None:
    facts[MAGNITUDE] = MAGNITUDE_NOTE
    if metrics and "magnitude_r2" in metrics:
      facts["magnitude_r2_held_out"] = metrics["magnitude_r2"]["value"]
  return sidecar.ModelSidecar(
    role="av",
    stage=stage,
    base_checkpoint=base,
    d_model=pair.verbalizer.architecture.d_model,
    injection_scale=pair.verbalizer.scale,
    mse_scale=float(pair.verbalizer.architecture.d_model) ** 0.5,
    tokens=sidecar.tokens_of(pair.prompts),
    av_template=pair.prompts.av_template,
    ar_template=pair.prompts.ar_template,
    layer_index=pair.layer,
    prompt_ids=pair.prompts.ids,
    trained_on=(trained_on,),
    # Keys of ours, which other tools pass over; `load_directories` takes them back.
    training={
      **facts,
      "inject_mode": pair.verbalizer.inject_mode,
      "inject_map": pair.verbalizer.inject_map,
      "max_new_tokens": pair.max_new_tokens,
      **({"ar_lines": pair.ar_lines} if pair.ar_lines > 1 else {}),
    },
  )
