"""What an export would refuse, found out before anything is trained or loaded: the sidecars are built first.

Whatever `directories.check_parts` asks of a pair on disk is asked here of a pair that does not exist yet.
"""

from collections.abc import Sequence

from nla_jax.autoencoder.nla import refuse_other_family
from nla_jax.autoencoder.pair import Pair
from nla_jax.autoencoder.prompts import AV_TEMPLATE, Prompts
from nla_jax.autoencoder.text import encode
from nla_jax.autoencoder.tokens import check_vocabulary, refuse_beyond
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.record import Pretrained
from nla_jax.interop.pairs.directories import check_parts
from nla_jax.interop.pairs.sidecar import ModelSidecar, tokens_of
from nla_jax.models.architectures import Architecture


def check_beforehand(
  architecture: Architecture,
  tokenizer,
  prompts: Prompts,
  layer: int,
  ends: Sequence[int] = (),
) -> None:
  """Builds the sidecars of an AV and an AR on a base model, and runs every check of an export on them.

  Args:
    architecture: of the base model.
    tokenizer: of the base model.
    prompts: of the pair.
    layer: K, 0-based.
    ends: tokens that end an answer by the model's own files.

  Raises:
    NLAError: such a pair could not be exported or read back.
  """
  # The ids first: which of them have no row is the plainer message.
  for name, ids in prompts.ids.items():
    refuse_beyond(ids, architecture.vocab_size, f"the prompt ({name})")

  for role, blocks in (("av", architecture), ("ar", architecture.lower(layer + 1))):
    side = ModelSidecar(
      role=role,
      stage="init",
      base_checkpoint="",
      d_model=architecture.d_model,
      injection_scale=1.0,
      mse_scale=float(architecture.d_model) ** 0.5,
      tokens=tokens_of(prompts),
      av_template=prompts.av_template,
      ar_template=prompts.ar_template,
      layer_index=layer,
      prompt_ids=prompts.ids,
    )
    check_parts(blocks, tokenizer, side, role, ends)


def check_base(base: Pretrained, pair: Pair) -> None:
  """Checks a base model, without its weights, that a pair is to read texts with.

  Args:
    base: the model, whole or up to some block.
    pair: whose tokens the base model is given.

  Raises:
    NLAError: the base model is of another family or width, has no row for some of the ids, or its own tokenizer gives
      others for the same text.
  """
  refuse_other_family(base.source, base.architecture, pair)
  tokenizer, prompts = pair.tokenizer, pair.prompts
  rows, name = base.architecture.vocab_size, base.source
  probe = f"{AV_TEMPLATE}\n{prompts.av_template} 12 345"
  ids, own = (encode(one, probe, special=True) for one in (tokenizer, base.tokenizer))
  refuse_beyond((*ids, *own), rows, f"a text for the base model {name}")
  check_vocabulary(base.tokenizer, rows)
  check_vocabulary(tokenizer, rows)

  if ids != own:
    place = next((i for i, (one, two) in enumerate(zip(ids, own)) if one != two), None)
    where = "in their number" if place is None else f"from token {place} on"
    raise NLAError(
      f"the base model {name} has another tokenizer than this pair (the ids of one text differ {where}): name the "
      "model that the pair was trained on with nla_jax.load(…, base=…)"
    )
