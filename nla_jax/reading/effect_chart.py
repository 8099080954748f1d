"""Effect against strength as one SVG with its own styles: it stands in a page, or alone as a file."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import escape

Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT = 560, 340
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 26, 540, 240
# Okabe and Ito's colours, which colour-blind people can tell apart; the first is the edit.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_STYLE = (
  "text{font:12px system-ui,sans-serif;fill:#333}.g{stroke:#8884}.z{stroke:#888}"
  "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
)


def effect_chart(curves: Mapping[str, Points], label: str) -> str:
  """One curve for each name.

  Args:
    curves: {name: (strength, effect) by strength}; what is not finite is left out.
    label: of the vertical axis.
  """
  drawn = {
    name: [p for p in points if all(map(math.isfinite, p))] for name, points in curves.items()
  }
  every = [point for points in drawn.values() for point in points] or [(0.0, 0.0)]
  # Zero is always seen: it is where nothing changed.
  low, high = min(0.0, *(y for _, y in every)), max(0.0, *(y for _, y in every))
  room = 0.06 * (high - low) or 0.5
  xs, ys = (min(0.0, *(x for x, _ in every)), max(x for x, _ in every)), (low - room, high + room)
  # One strength of zero has no range.
  xs = xs if xs[1] > xs[0] else (xs[0], xs[0] + 1)

  def place(x: float, y: float) -> tuple[float, float]:
    across, up = (x - xs[0]) / (xs[1] - xs[0]), (y - ys[0]) / (ys[1] - ys[0])
    return _LEFT + across * (_RIGHT - _LEFT), _BOTTOM - up * (_BOTTOM - _TOP)

  parts = [f"<style>{_STYLE}</style>", f'<text x="{_LEFT - 44}" y="14">{escape(label)}</text>']
  parts += _grid(place, sorted({x for x, _ in every}), _round_numbers(*ys))
  for i, (name, points) in enumerate(drawn.items()):
    parts += _curve([place(*point) for point in points], _COLOURS[i % len(_COLOURS)], i == 0)
    parts += _key(i, name)
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
    f'aria-label="{escape(label)} against strength">{"".join(parts)}</svg>'
  )


def _grid(place, xs: Sequence[float], ys: Sequence[float]) -> list[str]:
  parts = []
  for y in ys:
    at = place(0, y)[1]
    kind = "z" if y == 0 else "g"
    parts.append(f'<line class="{kind}" x1="{_LEFT}" x2="{_RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
    parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_shown(y)}</text>')

  # The strengths that were tried, as far as their labels do not run into each other.
  last = -math.inf
  for x in xs:
    at = place(x, 0)[0]
    if at - last >= 34:
      parts.append(f'<text x="{at:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{_shown(x)}</text>')
      last = at
  middle = (_LEFT + _RIGHT) / 2
  return [*parts, f'<text x="{middle}" y="{_BOTTOM + 36}" text-anchor="middle">strength α</text>']


def _curve(points: Points, colour: str, strong: bool) -> list[str]:
  width = 2.5 if strong else 1.5
  line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
  dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
  path = f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
  # A path of one point is invisible, and some renderers refuse it.
  return [path, *dots] if len(points) > 1 else dots


def _key(i: int, name: str) -> list[str]:
  """The name of a curve beside its colour, two in a row."""
  x, y = _LEFT + 250 * (i % 2), _BOTTOM + 62 + 20 * (i // 2)
  return [
    f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{_COLOURS[i % len(_COLOURS)]}"/>',
    f'<text x="{x + 10}" y="{y}">{escape(name)}</text>',
  ]


def _round_numbers(low: float, high: float) -> list[float]:
  """About four round numbers between two ends, zero among them."""
  power = 10.0 ** math.floor(math.log10((high - low) / 4))
  step = min((power * m for m in (1, 2, 5, 10)), key=lambda s: abs((high - low) / s - 4))
  return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _shown(value: float) -> str:
  return f"{value:.4g}".replace("-", "−")
