"""Training an existing pair further: `config.init` names it, and it takes the place of SFT."""

from pathlib import Path

from ml_collections import ConfigDict

from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.prompts import Prompts, make_prompts
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.base_models.record import Pretrained
from nla_jax.interop.pairs import adapted, sidecar
from nla_jax.interop.pairs.directories import read_parts
from nla_jax.interop.pairs.find import pair_directories
from nla_jax.interop.pairs.injected import INJECTION_FILE
from nla_jax.interop.pairs.load import load_directories
from nla_jax.interop.pairs.lora_files import read_adapters
from nla_jax.models.lora import Lora
from nla_jax.progress import say


def adopt(config: ConfigDict) -> None:
  """Puts into `config` what the pair `config.init` was trained with: layer, prompts, marker and injection, and the base
  model where none is named.

  Raises:
    NLAError: there is no pair of that name, or its sidecars cannot be read.
  """
  template = config.prompts.chat_template
  folders = pair_directories(config.init, weights=False, chat_template=template)
  av_folder, ar_folder = map(str, folders)
  av = sidecar.read_model_sidecar(av_folder, "av")
  ar = sidecar.read_model_sidecar(ar_folder, "ar")

  # These belong to the weights, so they win over what the config says. Of adapters so do rank, alpha and targets.
  if adapted.is_adapted(Path(av_folder)):
    base = adapted.base_of(av, config.model)
    lora = read_adapter(av_folder, base.architecture).lora
    _check_alike(lora, Path(ar_folder), base, ar)
    config.lora.update(rank=lora.rank, alpha=float(lora.alpha), targets=lora.targets)
  elif config.lora.rank:
    # Adapters start on the target's own weights, and those of a pair that was trained whole are others.
    raise NLAError(
      f"config.lora.rank={config.lora.rank} and config.init={config.init}: a pair of whole weights is trained further "
      "with --config.lora.rank=0"
    )
  config.model = config.model or av.base_checkpoint
  config.layer = ar.layer_index
  config.prompts.update(
    av=av.av_template,
    ar=ar.ar_template,
    marker=av.tokens.injection_char,
    ar_lines=av.training.get("ar_lines", 1),
  )
  affine = (Path(av_folder) / INJECTION_FILE).exists()
  config.inject.update(
    scale=float(av.injection_scale),
    map="affine" if affine else "scalar",
    mode=av.training.get("inject_mode", "replace"),
  )

  say(
    f"init: layer {config.layer}, α {config.inject.scale:g}, prompts and marker are those of {config.init}"
  )


def _check_alike(lora: Lora, ar_folder: Path, base: Pretrained, ar: sidecar.ModelSidecar) -> None:
  """Raises NLAError where the AR has no adapters of the AV's form: a run trains both with one."""
  other = None
  if adapted.is_adapted(ar_folder):
    other = read_adapters(ar_folder, adapted.architecture_of(base, ar)).lora
  if other != lora:
    raise NLAError(
      f"the AV's adapters are {lora}, the AR has {other or 'none'}: a run trains both with one rank, alpha and "
      "targets; merge them into their base and train the whole pair further"
    )


def initial_prompts(config: ConfigDict) -> Prompts:
  """The prompts of the pair `config.init`, as its own tokenizer gives them; its weights are not read.

  Args:
    config: the run's, after `adopt`.

  Raises:
    NLAError: there is no pair of that name, or its parts do not belong together.
  """
  c = config.prompts
  av_folder, _ = pair_directories(config.init, weights=False, chat_template=c.chat_template)
  _, _, tokenizer, ends = read_parts(av_folder, "av", config.model, c.chat_template)
  return make_prompts(tokenizer, c.av, c.ar, c.marker, ends)


def load_initial(config: ConfigDict, pretrained: Pretrained) -> NLA:
  """The pair `config.init`, with its parameters.

  Args:
    config: the run's, after `adopt`.
    pretrained: the base model whose activations the pair is to explain.

  Raises:
    NLAError: the pair was trained on another model.
  """
  nla = load_directories(
    config.init,
    compute=config.compute,
    base=config.model,
    chat_template=config.prompts.chat_template,
  )
  ours, base = nla.pair.verbalizer.architecture, pretrained.architecture

  # Not the whole architecture: of two exports of one model, one may name a limit that the other leaves unsaid.
  for field in ("family", "vocab_size", "d_model", "n_layers"):
    if getattr(ours, field) != getattr(base, field):
      raise NLAError(
        f"config.init={config.init} is of {field} {getattr(ours, field)}, config.model={config.model} of "
        f"{getattr(base, field)}: name the model that the pair was trained on"
      )
  return nla
