"""The words around a vector and around an explanation, as token ids asserted against a live tokenizer.

Templates and the marker rule are those of `docs/interchange.md`; a config may bring templates of its own, which then
travel in the sidecar. Special-token strings inside documents and explanations are escaped, never interpreted.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from nla_jax.autoencoder.text import bracketed, encode, well_formed
from nla_jax.errors import NLAError

AV_TEMPLATE = """\
You are a meticulous AI researcher conducting an important investigation into activation vectors from a language \
model. Your overall task is to describe the semantic content of that activation vector.

We will pass the vector enclosed in <concept> tags into your context. You must then produce an explanation for the \
vector, enclosed within <explanation> tags. The explanation consists of 2-3 text snippets describing that vector.

Here is the vector:

<concept>{injection_char}</concept>

Please provide an explanation."""
AR_TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
MARKERS = range(0x3200, 0x3400)
TAG = re.compile(r"</?explanation>")  # what no explanation holds
_EXPLANATION = re.compile(r"<explanation>(.*?)</explanation>", re.DOTALL)
_CLOSE = "\x00reply\x00"
_FENCE = (
  "\x00"  # stands around a special token's string inside a message while the template writes it
)


def wrap_explanation(text: str) -> str:
  """The AV's answer that holds `text`."""
  return f"<explanation>\n{text}\n</explanation>"


def parse_explanation(answer: str) -> str | None:
  """The first explanation in an AV's answer, stripped; None where there is none or it is empty."""
  match = _EXPLANATION.search(answer)
  return (match.group(1).strip() or None) if match else None


def special_tokens(tokenizer) -> dict[int, str]:
  """{id: string} of the tokens that stand for no words of a text."""
  named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))

  # A model need not name the one that begins a turn ("<|im_start|>") among its BOS, EOS and the like.
  added = tokenizer.added_tokens_decoder.items()
  flagged = {token: str(content) for token, content in added if content.special}
  return named | flagged | bracketed(tokenizer)


def render(tokenizer, messages: Sequence[Mapping[str, str]], *, reply: bool = False) -> list[int]:
  """Token ids of a conversation, as the tokenizer's chat template writes it.

  The template writes the BOS where there is one. Special-token strings inside the messages stay plain text.

  Args:
    tokenizer: with a chat template.
    messages: {"role", "content"} of each.
    reply: whether the assistant's next turn is begun.
  """
  for one in messages:
    well_formed(one["content"], f"what the {one['role']} says")
  strings = sorted(special_tokens(tokenizer).values(), key=len, reverse=True)
  found = [text for text in strings if any(text in one["content"] for one in messages)]
  if found:
    inside = re.compile(f"({'|'.join(map(re.escape, found))})")
    messages = [{**one, "content": _fenced(one["content"], inside)} for one in messages]

  text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply)
  if not found:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])

  # A special token parts a text, so what stands on either side of one is tokenised as it would be beside it.
  ids = []
  for i, piece in enumerate(text.split(_FENCE)):
    plain = i % 2 == 1
    ids += (
      encode(tokenizer, piece) if plain else tokenizer(piece, add_special_tokens=False)["input_ids"]
    )
  return ids


def opening(tokenizer) -> list[int]:
  """Token ids that the chat template writes before the first words of every conversation that a user begins.

  Empty without a chat template.
  """
  if tokenizer.chat_template is None:
    return []
  one, other = (render(tokenizer, [{"role": "user", "content": words}]) for words in ("a", "Z"))
  same = [first == second for first, second in zip(one, other)]
  return one[: same.index(False)]


def _fenced(text: str, inside: re.Pattern) -> str:
  """`text` with a fence around each match, and no other fence."""
  return inside.sub(rf"{_FENCE}\1{_FENCE}", text.replace(_FENCE, ""))


@dataclasses.dataclass(frozen=True)
class Prompts:
  """Token ids of both templates for one tokenizer.

  Attributes:
    av_template: with the one field `injection_char`.
    ar_template: with the one field `explanation`.
    marker: the injection character.
    marker_id: its id; occurs once in the AV's prompt.
    left_id: id before it.
    right_id: id after it.
    before: [P] int32, the AV's prompt up to the slot, the same for every sample.
    after: [A] int32, from the slot (first) to the end of the AV's prompt.
    close: ids that close the AV's turn; the last is where sampling stops.
    ar_before: [Q] int32, what every AR input begins with.
    ar_suffix: ids of the end of the AR template (`critic_suffix_ids` in the sidecar).
  """

  av_template: str
  ar_template: str
  marker: str
  marker_id: int
  left_id: int
  right_id: int
  before: np.ndarray
  after: np.ndarray
  close: tuple[int, ...]
  ar_before: np.ndarray
  ar_suffix: tuple[int, ...]

  @property
  def stop_id(self) -> int:
    """The token at which sampling stops."""
    return self.close[-1]

  def answer_ids(self, tokenizer, text: str) -> list[int]:
    """What the AV is taught to answer for the explanation `text`, with the tokens that close the turn."""
    return encode(tokenizer, wrap_explanation(text)) + list(self.close)

  def ar_ids(self, tokenizer, text: str) -> list[int]:
    """The AR's input for the explanation `text`, without the first `len(ar_before)` shared ids."""
    ids = encode(tokenizer, self.ar_template.format(explanation=text), special=True)
    shared = len(self.ar_before)

    # What the AR computes once for all inputs must be what each of them begins with.
    if ids[:shared] != list(self.ar_before):
      raise NLAError(
        f"the tokenizer merges the AR template's beginning with the explanation {text[:40]!r}; "
        "put a character that never merges before {explanation} in the template"
      )
    return ids[shared:]


def find_marker(tokenizer) -> tuple[str, int]:
  """The first code point in U+3200..U+33FF that is one token, and its id. Raises NLAError where there is none."""
  for code in MARKERS:
    ids = encode(tokenizer, chr(code))
    if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
      return chr(code), ids[0]
  raise NLAError(
    "no character in U+3200..U+33FF is a single token of this tokenizer, so there is no marker for the "
    "injected vector; name one with --config.prompts.marker=<a character that is one token>"
  )


def _close_of_turn(tokenizer) -> tuple[int, ...]:
  """Ids between an assistant's words and the end of its turn, by rendering a conversation with the template."""
  messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _CLOSE}]
  tail = tokenizer.apply_chat_template(messages, tokenize=False).split(_CLOSE)[1]

  # The first special token ends the turn; what a template writes behind it is never sampled.
  ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
  special = set(tokenizer.all_special_ids)
  for index, token in enumerate(ids):
    if token in special:
      return tuple(ids[: index + 1])

  if tokenizer.eos_token_id is None:
    raise NLAError(
      "the chat template closes a turn without a special token and the tokenizer has no eos_token, so "
      "sampling would never stop; give the tokenizer an eos_token"
    )
  return (*ids, tokenizer.eos_token_id)


def make_prompts(
  tokenizer,
  av_template: str = AV_TEMPLATE,
  ar_template: str = AR_TEMPLATE,
  marker: str | None = None,
) -> Prompts:
  """Builds and checks the prompts.

  Args:
    tokenizer: of the base model, with a chat template.
    av_template: with the one field `injection_char`.
    ar_template: with the one field `explanation`.
    marker: the injection character; None finds one.

  Raises:
    NLAError: a template, the marker or the tokenizer cannot serve.
  """
  _check_templates(tokenizer, av_template, ar_template)
  marker, marker_id = find_marker(tokenizer) if marker is None else _given(tokenizer, marker)

  # 1. The AV's prompt: one user turn, cut at the slot.
  messages = [{"role": "user", "content": av_template.format(injection_char=marker)}]
  ids = render(tokenizer, messages, reply=True)
  slot = _slot(ids, marker, marker_id)

  # 2. The AR's input: raw text, without a chat template.
  head, tail = ar_template.split("{explanation}")
  # The last id of the beginning may merge with the explanation's first character, so it is not shared.
  ar_before = encode(tokenizer, head, special=True)[:-1]
  return Prompts(
    av_template,
    ar_template,
    marker,
    marker_id,
    ids[slot - 1],
    ids[slot + 1],
    np.array(ids[:slot], np.int32),
    np.array(ids[slot:], np.int32),
    _close_of_turn(tokenizer),
    np.array(ar_before, np.int32),
    tuple(encode(tokenizer, tail)[1:]),
  )


def _check_templates(tokenizer, av_template: str, ar_template: str) -> None:
  fields = (("av", av_template, "{injection_char}"), ("ar", ar_template, "{explanation}"))
  for name, template, field in fields:
    if template.count(field) != 1:
      raise NLAError(
        f"the {name} template must hold {field} exactly once, it holds it {template.count(field)} times"
      )
  if tokenizer.chat_template is None:
    raise NLAError(
      "this tokenizer has no chat template, which the AV's prompt needs; use an instruction-tuned model "
      "or set tokenizer.chat_template"
    )


def _given(tokenizer, marker: str) -> tuple[str, int]:
  """A marker that the config names, and its id."""
  ids = encode(tokenizer, marker)
  if len(ids) != 1:
    raise NLAError(f"the marker {marker!r} is {len(ids)} tokens, it must be exactly one")
  return marker, ids[0]


def _slot(ids: list[int], marker: str, marker_id: int) -> int:
  """Where the marker stands in the AV's prompt; it needs a neighbour on both sides, by which readers find it."""
  slots = [i for i, token in enumerate(ids) if token == marker_id]
  if len(slots) != 1 or slots[0] in (0, len(ids) - 1):
    raise NLAError(
      f"the marker {marker!r} (id {marker_id}) must occur once inside the AV's prompt, "
      f"it occurs at {slots} of {len(ids)} tokens"
    )
  return slots[0]
