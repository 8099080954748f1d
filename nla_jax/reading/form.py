"""A `Reading` as people look at it: in a terminal and in a notebook."""

import html as escaping
import shutil
import textwrap

from nla_jax.autoencoder.explanation import Claim, Explanation
from nla_jax.conversation.tokens import CONTENT

LOW = 0.5  # an FVE below says less than it leaves out
_BEFORE = 48  # characters shown before a token in a terminal
CAUTION = (
  "Explanations are drawn by a model and confabulate: what they name need not be there. FVE says how much of the "
  "activation is rebuilt from the words alone."
)


def table(reading) -> str:
  """The explanations as lines for a terminal, with what was read before each."""
  width = max(shutil.get_terminal_size((100, 24)).columns, 40)
  lines = []
  for i in range(len(reading)):
    lines += [_heading(reading, i), *_indented(_samples(reading, i), width)]
    notes = [f"norm {reading.norms[i]:.3g}"]
    if reading.best_of > 1:
      notes.append(f"the best of {reading.best_of} by the AR")
    agreement = reading.agreement(i)
    if agreement is not None:
      shared = ", ".join(reading.shared_words(i)[:8]) or "no word"
      notes.append(f"the samples agree on {shared} ({agreement:.0%} of their words)")
    lines += [f"    {', '.join(notes)}", ""]
  return "\n".join(lines)


def score(explanation: Explanation) -> str:
  """How good an explanation is, in words."""
  if explanation.text is None:
    return "without a text there is no score"
  if explanation.fve is None:
    return f"FVE unknown, cosine {explanation.cosine:.2f}"
  low = ": low, trust it little" if explanation.fve < LOW else ""
  return f"FVE {explanation.fve:.2f}{low}"


def claim(one: Claim) -> str:
  """A claim with how far it can be trusted."""
  trusted = "" if one.confidence is None else f" {one.confidence:.0%}"
  return f"{one.text!r} ({one.field}){trusted}"


def _heading(reading, i: int) -> str:
  tokens, position = reading.tokens, reading.positions[i]
  before = tokens.text[: tokens.starts[position]]
  cut = "…" if len(before) > _BEFORE else ""
  role = tokens.roles[position]
  said = f" ({role}, {tokens.sections[position]})" if role is not None else ""
  return f"token {position}{said}  {cut}{before[-_BEFORE:]!r} → {tokens.word(position)!r}"


def _samples(reading, i: int) -> list[str]:
  found = []
  for one in reading.samples[i]:
    words = f"(no explanation: {one.reason})" if one.text is None else one.text
    found += [line for line in words.splitlines() if line.strip()]
    found.append(f"  {score(one)}")
    if one.claims:
      found.append(f"  claims: {', '.join(map(claim, one.claims))}")
  return found


def _indented(lines: list[str], width: int) -> list[str]:
  wrapped = [textwrap.wrap(line, width - 4, subsequent_indent="  ") for line in lines]
  return [f"    {part}" for parts in wrapped for part in parts]


def html(reading) -> str:
  """The reading as a piece of HTML without scripts: the input with its tokens marked, and the explanations below."""
  rows = "".join(_row(reading, i) for i in range(len(reading)))
  return (
    f'<div style="{_BOX}">{_input(reading)}<table style="border-collapse:collapse;width:100%">{rows}</table>'
    f'<p style="opacity:.7;font-size:smaller">{CAUTION}</p></div>'
  )


# Colours are mixed with what a notebook has, which may be light or dark.
_BOX = "max-width:60em;line-height:1.5;text-align:left"
_CELL = "vertical-align:top;text-align:left;padding:.4em .8em .4em 0;border-top:1px solid rgba(128,128,128,.3)"
_AROUND = 120  # tokens shown on either side of what was read


def _input(reading) -> str:
  """What was read, its tokens marked by FVE; of a long one the parts around them."""
  tokens, read = reading.tokens, {position: i for i, position in enumerate(reading.positions)}
  near = {j for position in read for j in range(position - _AROUND, position + _AROUND + 1)}
  parts, before, gap = [], (0, 0), False
  for j in range(len(tokens)):
    if j not in near:
      gap = True
      continue
    if gap:
      parts.append(" … ")
    # Tokens of one character are written once.
    place, gap = (tokens.starts[j], tokens.ends[j]), False
    if place != before or j in read:
      parts.append(_token(reading, j, read))
    before = place
  return f'<p style="white-space:pre-wrap;overflow-wrap:anywhere">{"".join(parts)}</p>'


def _token(reading, j: int, read: dict[int, int]) -> str:
  word = escaping.escape(reading.tokens.word(j))
  if j in read:
    fve = reading[read[j]].fve
    return f'<mark style="{_colour(fve)}" title="token {j}">{word}</mark>'
  faint = reading.tokens.sections[j] != CONTENT
  return f'<span style="opacity:.5">{word}</span>' if faint else word


def _colour(fve: float | None) -> str:
  """Green where the words carry the activation, orange where they do not."""
  share = 0.0 if fve is None else min(max(fve, 0.0), 1.0)
  strength = 0.25 if fve is None else 0.45
  hue = "128,128,128" if fve is None else ("46,139,87" if share >= LOW else "230,126,34")
  return f"color:inherit;background:rgba({hue},{strength});border-radius:.2em"


def _text(one: Explanation) -> str:
  """The words of an explanation, each claim underlined as far as it can be trusted."""
  if one.text is None:
    return escaping.escape(f"({one.reason})")
  parts, last = [], 0
  for said in sorted(one.claims, key=lambda said: said.span):
    start, end = said.span
    if said.confidence is None or start < last:
      continue
    parts.append(escaping.escape(one.text[last:start]))
    strong = f"text-decoration:underline;text-decoration-thickness:{1 + 3 * said.confidence:.1f}px"
    title = f"{said.confidence:.0%} likely to be true"
    parts.append(f'<span style="{strong}" title="{title}">{escaping.escape(said.text)}</span>')
    last = end
  return "".join([*parts, escaping.escape(one.text[last:])])


def _row(reading, i: int) -> str:
  position = reading.positions[i]
  word = escaping.escape(reading.word(i)) or "·"
  samples = "".join(
    f'<div style="white-space:pre-wrap;margin-bottom:.4em">{_text(one)}'
    f'<br><small style="opacity:.7">{escaping.escape(score(one))}</small></div>'
    for one in reading.samples[i]
  )
  role = reading.tokens.roles[position] or ""
  return (
    f'<tr><td style="{_CELL};white-space:pre"><b>{word}</b><br><small style="opacity:.7">{position} '
    f'{escaping.escape(role)}</small></td><td style="{_CELL};width:100%">{samples}</td></tr>'
  )
