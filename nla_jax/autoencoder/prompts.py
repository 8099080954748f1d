"""The words around a vector and around an explanation, as token ids asserted against a live tokenizer.

Templates and the marker rule are those of `docs/interchange.md`; a config may bring templates of its own, which then
travel in the sidecar. A template is taken as it stands but for its one field, so braces are its own. Special-token
strings inside documents and explanations are escaped, never interpreted.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nla_jax.autoencoder.chat import chosen_template, render
from nla_jax.autoencoder.text import encode
from nla_jax.autoencoder.tokens import refuse_appended
from nla_jax.autoencoder.turns import close_of_turn, stop_ids
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
AV_FIELD, AR_FIELD = "{injection_char}", "{explanation}"
MARKERS = range(0x3200, 0x3400)
TAG = re.compile(r"</?explanation>")  # what no explanation holds
TAGS = ("<explanation>", "</explanation>")
_EXPLANATION = re.compile(r"<explanation>(.*?)</explanation>", re.DOTALL)
# Texts whose ends meet a template's in as many ways: letters, digits, points, brackets, blanks, other scripts, nothing.
_MEETING = ("x", "", " ", "\n", "1", "a.", "(a)", "<a>", "a b ", "é", "雪", "_", "'")


class NoMarkerError(NLAError):
  """A character that cannot be the marker, or none that can."""


def wrap_explanation(text: str) -> str:
  """The AV's answer that holds `text`."""
  return f"<explanation>\n{text}\n</explanation>"


def parse_explanation(answer: str) -> str | None:
  """The first explanation in an AV's answer, stripped; None where there is none or it is empty."""
  match = _EXPLANATION.search(answer)
  return (match.group(1).strip() or None) if match else None


def av_content(template: str, marker: str) -> str:
  """What the user's turn of the AV's prompt says: the template with `marker` in its field."""
  return template.replace(AV_FIELD, marker)


def ar_text(template: str, explanation: str) -> str:
  """The text that the AR reads: the template with `explanation` in its field."""
  return template.replace(AR_FIELD, explanation)


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
    close: ids that close the AV's turn; the last ends it.
    ar_before: [Q] int32, what every AR input begins with.
    ar_suffix: ids at the end of every AR input (`critic_suffix_ids` in the sidecar).
    stop_ids: every token at which sampling stops: the end of the turn, last, and what the model's files name.
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
  stop_ids: tuple[int, ...]

  @property
  def stop_id(self) -> int:
    """The token that ends the AV's turn, and fills up rows."""
    return self.close[-1]

  @property
  def asks_for_tags(self) -> bool:
    """Whether the AV's prompt asks for an explanation in tags."""
    return TAGS[0] in self.av_template

  @property
  def ids(self) -> dict[str, list[int]]:
    """All ids by name, as JSON values: what is kept beside weights that were trained with them."""
    names = ("before", "after", "close", "stop_ids", "ar_before", "ar_suffix")
    return {name: [int(token) for token in getattr(self, name)] for name in names}

  def answer_ids(self, tokenizer, text: str) -> list[int]:
    """What the AV is taught to answer for the explanation `text`, with the tokens that close the turn."""
    return encode(tokenizer, wrap_explanation(text)) + list(self.close)

  def ar_ids(self, tokenizer, text: str) -> list[int]:
    """The AR's input for the explanation `text`, without the first `len(ar_before)` shared ids."""
    ids = encode(tokenizer, ar_text(self.ar_template, text), special=True)
    shared = len(self.ar_before)

    # What the AR computes once for all inputs must be what each of them begins with.
    if ids[:shared] != list(self.ar_before):
      raise NLAError(
        f"the tokenizer merges the AR template's beginning with the explanation {text[:40]!r}; "
        "put a character that never merges before {explanation} in the template"
      )
    return ids[shared:]


def make_prompts(
  tokenizer,
  av_template: str = AV_TEMPLATE,
  ar_template: str = AR_TEMPLATE,
  marker: str | None = None,
  ends: Sequence[int] = (),
) -> Prompts:
  """Builds and checks the prompts.

  Args:
    tokenizer: of the base model, with a chat template.
    av_template: with the one field `injection_char`.
    ar_template: with the one field `explanation`.
    marker: the injection character; None finds one.
    ends: tokens that end an answer by the model's own files, besides the tokenizer's EOS.

  Raises:
    NLAError: a template, the marker or the tokenizer cannot serve.
  """
  _check_templates(tokenizer, av_template, ar_template)
  refuse_appended(tokenizer)

  # 1. The AV's prompt: one user turn, cut at the slot.
  if marker is None:
    marker, ids, slot = _first_marker(tokenizer, av_template)
  else:
    ids = _av_ids(tokenizer, av_template, marker)
    slot = _slot(tokenizer, ids, marker)
  close = close_of_turn(tokenizer, ends)

  # 2. The AR's input: raw text, without a chat template.
  head, _ = ar_template.split(AR_FIELD)
  # The last id of the beginning may merge with the explanation's first character, so it is not shared.
  ar_before = encode(tokenizer, head, special=True)[:-1]
  if not ar_before:
    raise NLAError(
      f"before {AR_FIELD} the ar template has {head!r}, which is less than two tokens: begin it with a few words, "
      "which all inputs share"
    )
  prompts = Prompts(
    av_template,
    ar_template,
    marker,
    ids[slot],
    ids[slot - 1],
    ids[slot + 1],
    np.array(ids[:slot], np.int32),
    np.array(ids[slot:], np.int32),
    close,
    np.array(ar_before, np.int32),
    (),
    stop_ids(tokenizer, close, ends),
  )
  return dataclasses.replace(prompts, ar_suffix=_ar_suffix(tokenizer, prompts))


def find_marker(tokenizer, av_template: str = AV_TEMPLATE) -> tuple[str, int]:
  """The first code point in U+3200..U+33FF that is one token in the AV's prompt, and its id.

  Raises:
    NLAError: there is none, or no chat template that can serve.
  """
  marker, ids, slot = _first_marker(tokenizer, av_template)
  return marker, ids[slot]


def _first_marker(tokenizer, av_template: str) -> tuple[str, list[int], int]:
  """The marker, the ids of the prompt with it, and its place there."""
  for marker in _candidates(tokenizer):
    # One that the template's own words hold would not be found again by others.
    if av_content(av_template, marker).count(marker) > 1:
      continue
    ids = _av_ids(tokenizer, av_template, marker)
    if _places(tokenizer, ids, marker):
      return marker, ids, _slot(tokenizer, ids, marker)

  raise NoMarkerError(
    "no character in U+3200..U+33FF is a single token of this tokenizer, so there is no marker for the "
    "injected vector; name one with --config.prompts.marker=<a character that is one token>"
  )


def _candidates(tokenizer) -> Iterator[str]:
  """Characters that may be markers; to render a prompt with each of 512 would take seconds."""
  for code in MARKERS:
    *blank, last = encode(tokenizer, chr(code)) or [tokenizer.unk_token_id]

    # SentencePiece puts a blank before a text, which is not there inside a prompt.
    if last != tokenizer.unk_token_id and not tokenizer.decode(blank).strip():
      yield chr(code)


def _av_ids(tokenizer, av_template: str, marker: str) -> list[int]:
  """The AV's prompt with a marker in its slot."""
  content = av_content(av_template, marker)
  return render(tokenizer, [{"role": "user", "content": content}], reply=True)


def _places(tokenizer, ids: Sequence[int], marker: str) -> list[int]:
  """Where the marker stands as a token of its own: judged in the prompt, since it may be cut otherwise alone."""
  known = {token for token in set(ids) if tokenizer.decode([token]).strip() == marker}
  known.discard(tokenizer.unk_token_id)
  return [i for i, token in enumerate(ids) if token in known]


def _slot(tokenizer, ids: list[int], marker: str) -> int:
  """Where the marker stands in the AV's prompt; it needs a neighbour on both sides, by which readers find it."""
  slots = _places(tokenizer, ids, marker)
  if not slots:
    alone = encode(tokenizer, marker)
    if tokenizer.unk_token_id in alone:
      raise NoMarkerError(
        f"the tokenizer does not know the marker {marker!r}; name another with --config.prompts.marker"
      )
    raise NoMarkerError(
      f"the marker {marker!r} is {len(alone)} tokens by itself and no token of its own in the AV's prompt, it must be "
      "exactly one; name another with --config.prompts.marker"
    )

  if len(slots) != 1 or slots[0] in (0, len(ids) - 1):
    raise NoMarkerError(
      f"the marker {marker!r} (id {ids[slots[0]]}) must occur once inside the AV's prompt, "
      f"it occurs at {slots} of {len(ids)} tokens: take one that the template does not hold (or the chat template "
      "writes the prompt more than once, or nothing around it)"
    )
  return slots[0]


def _ar_suffix(tokenizer, prompts: Prompts) -> tuple[int, ...]:
  """Ids with which every AR input ends, whatever the explanation; raises where the template's ends merge with it."""
  _, tail = prompts.ar_template.split(AR_FIELD)
  rows = [prompts.ar_ids(tokenizer, text) for text in _MEETING]
  suffix = tuple(encode(tokenizer, tail)[1:])
  if suffix and all(row[-len(suffix) :] == list(suffix) for row in rows):
    return suffix

  # Alone the end is cut otherwise than behind a text: what all inputs have in common is what there is.
  length = 0
  while length < min(map(len, rows)) and len({row[-1 - length] for row in rows}) == 1:
    length += 1
  if tail and not length:
    raise NLAError(
      f"the tokenizer merges the end of the AR template, {tail!r}, with what stands before it, and the AR reads the "
      "last token: begin that end with a character that never merges, such as a line's end"
    )
  return tuple(rows[0][len(rows[0]) - length :])


def _check_templates(tokenizer, av_template: str, ar_template: str) -> None:
  fields = (("av", av_template, AV_FIELD), ("ar", ar_template, AR_FIELD))
  for name, template, field in fields:
    try:
      template.encode()
    except UnicodeEncodeError as error:
      raise NLAError(
        f"the {name} template holds half of a surrogate pair at character {error.start}: write the whole character"
      ) from error
    if template.count(field) != 1:
      raise NLAError(
        f"the {name} template must hold {field} exactly once, it holds it {template.count(field)} times"
      )
  chosen_template(tokenizer)


def check_kept(
  kept: Mapping[str, Sequence[int]], live: Prompts, tokenizer: Any, where: str
) -> None:
  """Raises NLAError where a pair was trained with other ids than the tokenizer gives now, at the first of them.

  Args:
    kept: `Prompts.ids` of what was trained.
    live: made now.
    tokenizer: it was made with.
    where: what keeps the ids, for the message.
  """
  words = {
    "before": "the AV's prompt",
    "after": "the AV's prompt behind the slot",
    "close": "the end of the AV's turn",
    "ar_before": "the AR's input",
    "ar_suffix": "the end of the AR's input",
  }
  for name, what in words.items():
    old, new = (list(map(int, ids)) for ids in (kept.get(name, live.ids[name]), live.ids[name]))
    if old == new:
      continue

    # One may go on where the other ends.
    places = (i for i, (one, other) in enumerate(zip(old, new)) if one != other)
    place = next(places, min(len(old), len(new)))
    was, now = (tokenizer.decode(ids[place : place + 8]) for ids in (old, new))
    raise NLAError(
      f"{where} was trained with another prompt: token {place} of {what} begins {was!r} there and {now!r} now. The "
      "chat template, the tokenizer or the transformers library has changed: take back the one it was trained with "
      "(a chat template with --config.prompts.chat_template=FILE, or nla_jax.load(…, chat_template=FILE))"
    )
