"""Effect against strength as one SVG with its own styles: it stands in a page, or alone as a file."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from nla_jax.axes import Axes, Points, path, svg, tag

_WIDTH, _HEIGHT = 560, 340
_BOX = (56.0, 26.0, 540.0, 240.0)  # left, top, right, bottom of the plot
# Okabe and Ito's colours, which colour-blind people can tell apart; the first is the edit.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_APART = 34  # pixels between two labels of strengths, at least
_STYLE = (
  "text{font:12px system-ui,sans-serif;fill:#333}.grid{stroke:#8884}.zero{stroke:#888}"
  ".end{text-anchor:end}.middle{text-anchor:middle}@media(prefers-color-scheme:dark){text{fill:#ddd}}"
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
  ends = (min(0.0, *(x for x, _ in every)), max(x for x, _ in every))
  # One strength of zero has no range.
  axes = Axes(
    ends if ends[1] > ends[0] else (ends[0], ends[0] + 1), (low - room, high + room), _BOX
  )

  parts = [tag("style", Markup(_STYLE))]
  parts += axes.grid("strength α", marks=_strengths(axes, sorted({x for x, _ in every})))
  # Longer than the room beside the axis, so it begins at the picture's edge.
  parts.append(tag("text", label, x=12, y=14))
  for i, (name, points) in enumerate(drawn.items()):
    parts += _curve(
      [(axes.x(x), axes.y(y)) for x, y in points], _COLOURS[i % len(_COLOURS)], i == 0
    )
    parts += _key(i, name)
  name = f"{label} against strength"
  return str(svg(_WIDTH, _HEIGHT, name, parts, xmlns="http://www.w3.org/2000/svg"))


def _strengths(axes: Axes, xs: Sequence[float]) -> list[tuple[float, str]]:
  """The strengths that were tried, as far as their labels do not run into each other."""
  kept = []
  for x in xs:
    if not kept or axes.x(x) - axes.x(kept[-1]) >= _APART:
      kept.append(x)
  return [(x, f"{x:.4g}".replace("-", "−")) for x in kept]


def _curve(points: Points, colour: str, strong: bool) -> list[Markup]:
  dots = [tag("circle", cx=float(x), cy=float(y), r=3, fill=colour) for x, y in points]
  # A path of one point is invisible, and some renderers refuse it.
  if len(points) < 2:
    return dots
  return [path(points, fill="none", stroke=colour, stroke_width=2.5 if strong else 1.5), *dots]


def _key(i: int, name: str) -> list[Markup]:
  """The name of a curve beside its colour, two in a row."""
  x, y = _BOX[0] + 250 * (i % 2), _BOX[3] + 62 + 20 * (i // 2)
  return [
    tag("circle", cx=x, cy=y - 4, r=4, fill=_COLOURS[i % len(_COLOURS)]),
    tag("text", name, x=x + 10, y=y),
  ]
