"""A pair of AV and AR as two Hugging Face directories, each with its sidecar and model card."""

from pathlib import Path

from nla_jax.autoencoder.nla import NLA
from nla_jax.interop.base_models import huggingface
from nla_jax.interop.base_models.find import cached_directory
from nla_jax.interop.pairs import directories, model_card, sidecar
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
) -> None:
  """Writes `folder/av` and `folder/ar`, each with its model card; keys of the base model's config.json are kept."""
  p, pair = nla.pair.prompts, nla.pair
  facts = {"fve_round_trip_held_out": metrics["fve"]["round_trip"]["value"]} if metrics else {}
  common = {
    "stage": stage,
    "base_checkpoint": base,
    "d_model": pair.verbalizer.architecture.d_model,
    "injection_scale": pair.verbalizer.scale,
    "mse_scale": float(pair.verbalizer.architecture.d_model) ** 0.5,
    "tokens": sidecar.tokens_of(p),
    "av_template": p.av_template,
    "ar_template": p.ar_template,
    "layer_index": pair.layer,
    "trained_on": (trained_on,),
    "training": {
      **facts,
      "inject_mode": pair.verbalizer.inject_mode,
      "inject_map": pair.verbalizer.inject_map,
      "max_new_tokens": pair.max_new_tokens,
    },
  }
  directory = cached_directory(base)
  config = huggingface.read_config(directory) if directory else None
  config = config and config.get("text_config", config)  # of a multimodal wrapper
  directories.write_av(
    folder / "av",
    pair.verbalizer.architecture,
    nla.av_params["transformer"],
    pair.tokenizer,
    sidecar.ModelSidecar(role="av", **common),
    config,
    injection=nla.av_params.get("injection"),
    dtype=dtype,
  )
  directories.write_ar(
    folder / "ar",
    pair.reconstructor.architecture,
    nla.ar_params["transformer"],
    nla.ar_params["head"]["weight"],
    pair.tokenizer,
    sidecar.ModelSidecar(role="ar", **common),
    config,
    dtype=dtype,
  )
  if distributed.is_first():
    for role in ("av", "ar"):
      model_card.write_card(folder / role, metrics)
