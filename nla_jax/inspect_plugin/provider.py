"""The model provider `nla/<model>`: the local target answers, and the log keeps the token ids of all it read and wrote.

    inspect eval task.py --model nla/package:NAME [-M adapter=FOLDER] [-M compute=auto]

Activations are not kept: they follow from the ids, which are a thousandth of their size. `target.read_output` reads
them later, from a live output or from one of a log.
"""

import secrets
import time

from inspect_ai.model import (
  ChatCompletionChoice,
  ChatMessage,
  ChatMessageAssistant,
  GenerateConfig,
  ModelAPI,
  ModelOutput,
  ModelUsage,
  modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from nla_jax.auditing.transcripts import chat_messages
from nla_jax.autoencoder.text import decode, encode
from nla_jax.conversation.messages import Message
from nla_jax.errors import NLAError
from nla_jax.inspect_plugin.computing import computed
from nla_jax.organisms.speaker import Speaker, load_speaker
from nla_jax.parallel.precision import compute_dtype
from nla_jax.reading.complete import Drawing, complete

KEY = "nla"  # of the reference in ModelOutput.metadata
MAX_TOKENS = 256  # of an answer, where nobody says how many
# What the library's token loop does not do: passed over, it would be another experiment than was asked for.
_REFUSED = (
  *("top_p", "top_k", "stop_seqs", "best_of", "frequency_penalty", "presence_penalty"),
  *("logit_bias", "logprobs", "top_logprobs", "prompt_logprobs", "response_schema"),
)


@modelapi(name="nla")
class NLAModel(ModelAPI):
  """A local model that answers through the library's own decoding.

  Args:
    model_name: as `config.model`: `package:NAME`, a folder, a .gguf file or a hub id.
    base_url: not used.
    api_key: not used.
    config: of generation.
    adapter: a LoRA of PEFT that is merged into it, a directory; empty for none.
    compute: `float32`, `bfloat16` or `auto`, as `config.compute`.
    speaker: a model that is loaded already.

  Attributes:
    speaker: the loaded model.

  Raises:
    NLAError: nothing is found under a name, or the adapter belongs to another model.
  """

  def __init__(
    self,
    model_name: str,
    base_url: str | None = None,
    api_key: str | None = None,
    config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's signature
    adapter: str = "",
    compute: str = "auto",
    speaker: Speaker | None = None,
  ):
    super().__init__(model_name, base_url, api_key, [], config)
    self._adapter = adapter
    self.speaker = speaker or load_speaker(model_name, adapter, compute_dtype(compute))

  async def generate(
    self,
    input: list[ChatMessage],
    tools: list[ToolInfo],
    tool_choice: ToolChoice,
    config: GenerateConfig,
  ) -> ModelOutput:
    """What the model says next; of a last message of the assistant, how it goes on."""
    if tools:
      raise NLAError(
        f"nla/{self.model_name} calls no tools: let another model be the agent, and this one what it asks"
      )
    refused = [name for name in _REFUSED if getattr(config, name) is not None]
    if refused:
      raise NLAError(
        f"nla/{self.model_name} does not know {', '.join(refused)}: it takes temperature, seed, max_tokens and "
        "num_choices"
      )
    return await computed(self._answered, chat_messages(input), config)

  def _answered(self, messages: list[Message], config: GenerateConfig) -> ModelOutput:
    began = time.monotonic()
    prompt = self.speaker.tokens(messages, ask=True).ids

    # 1. How much room there is. Inspect's agents know what to do with an overflow.
    room = self.speaker.target.model.architecture.max_positions - len(prompt)
    if room < 1:
      error = f"the prompt has {len(prompt)} tokens, which leaves no room for an answer"
      return ModelOutput.from_content(self.model_name, error, "model_length", error)
    most = min(MAX_TOKENS if config.max_tokens is None else config.max_tokens, room)

    # 2. The draw. Without a seed each answer has another one, and the log says which.
    seed = secrets.randbelow(2**31) if config.seed is None else config.seed
    warmth = 1.0 if config.temperature is None else config.temperature
    drawing = Drawing(
      max_new_tokens=most,
      samples=config.num_choices or 1,
      greedy=warmth == 0,
      temperature=warmth or 1.0,
      seed=seed,
    )
    answers = complete(self.speaker.target, [prompt], drawing).tokens[0]

    # 3. What it said, and of which tokens its activations are.
    written = sum(map(len, answers))
    usage = ModelUsage(
      input_tokens=len(prompt), output_tokens=written, total_tokens=len(prompt) + written
    )
    reference = {
      "model": self.model_name,
      "adapter": self._adapter,
      "prompt_ids": prompt,
      "answer_ids": answers,
      "temperature": warmth,
      "seed": seed,
    }
    return ModelOutput(
      model=self.model_name,
      choices=[self._choice(ids, most) for ids in answers],
      usage=usage,
      time=time.monotonic() - began,
      metadata={KEY: reference},
    )

  def _choice(self, ids: list[int], most: int) -> ChatCompletionChoice:
    text = decode(self.speaker.tokenizer, ids)
    message = ChatMessageAssistant(content=text, model=self.model_name, source="generate")
    return ChatCompletionChoice(
      message=message, stop_reason="stop" if len(ids) < most else "max_tokens"
    )

  async def count_text_tokens(self, text: str) -> int:
    """Tokens of a text, by the model's own tokenizer; Inspect's own estimate would download one."""
    return len(encode(self.speaker.tokenizer, text))

  def max_tokens(self) -> int:
    """Of an answer, where nobody says how many."""
    return MAX_TOKENS

  def max_connections(self) -> int:
    """One: the device computes one answer at a time."""
    return 1

  def connection_key(self) -> str:
    """What shares that one connection."""
    return f"{self.model_name} {self._adapter}"
