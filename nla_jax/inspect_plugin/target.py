"""The target of a loaded pair as a model of Inspect, and what it thought while it wrote an answer."""

import os
from typing import Any

from inspect_ai.model import GenerateConfig, Model, ModelOutput

from nla_jax.autoencoder.nla import NLA
from nla_jax.errors import NLAError
from nla_jax.inspect_plugin.conversations import chosen_among
from nla_jax.inspect_plugin.provider import KEY, NLAModel
from nla_jax.organisms.speaker import Speaker
from nla_jax.reading.reading import Reading


def target_model(nla: NLA, config: GenerateConfig | None = None) -> Model:
  """The target of a loaded pair as a model of Inspect, which shares its weights.

  Args:
    nla: the pair.
    config: of generation.

  Raises:
    NLAError: there is no base model.
  """
  config = config or GenerateConfig()
  speaker = Speaker(nla.whole_target, nla.pair.tokenizer)
  api = NLAModel(
    model_name=nla.base, config=config, adapter=nla.model_adapter or "", speaker=speaker
  )
  return Model(api, config)


def read_output(
  nla: NLA, output: ModelOutput, positions: Any = "all", *, choice: int = 0, **options: Any
) -> Reading:
  """What the target thought while it wrote an answer, on the very tokens that it wrote.

  Args:
    nla: the pair of the model that answered.
    output: of the provider `nla`, live or from a log.
    positions: which tokens of the answer, see `conversation.positions`; an index counts in the answer.
    choice: which of several answers.
    options: as of `NLA.read`.

  Raises:
    NLAError: the output is of another provider or adapter, the answer is empty, or a rule leaves none of its tokens.
  """
  found = (output.metadata or {}).get(KEY)
  if not isinstance(found, dict) or not {"prompt_ids", "answer_ids", "adapter"} <= found.keys():
    raise NLAError(
      f"the output of {output.model or 'this model'} has no token ids: only answers of nla/<model> can be read"
    )
  _refuse_other_adapter(nla, found["adapter"])
  answers = found["answer_ids"]
  if not 0 <= choice < len(answers):
    raise NLAError(f"choice={choice}: the output has {len(answers)} answers")
  if not answers[choice]:
    raise NLAError("the answer is empty: there is no token to read")

  ids = [*found["prompt_ids"], *answers[choice]]
  written = range(len(found["prompt_ids"]), len(ids))
  places = chosen_among(nla.tokens(ids), written, positions, options.get("seed", 0))
  return nla.read(ids, places, **options)


def _refuse_other_adapter(nla: NLA, adapter: str) -> None:
  # The base reads an organism's words as well, and would give its own thoughts about them as the organism's.
  ours, theirs = (os.path.abspath(one) if one else "" for one in (nla.model_adapter, adapter))
  if ours != theirs:
    raise NLAError(
      f"the answer was written with {'the adapter ' + adapter if adapter else 'no adapter'}, and this pair reads "
      f"{'the adapter ' + nla.model_adapter if nla.model_adapter else 'the base model'}: load it with the same "
      "model_adapter"
    )
