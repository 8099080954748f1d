"""Axes of a chart in SVG: scales, round numbers and their labels, and escaped elements.

Markup has no colours: elements have classes, and who makes a chart says what these look like.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]
_LEAST, _MOST = 1e-306, 1e300  # spans and ends of axes


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
  """One escaped SVG element; class_ is class, stroke_width is stroke-width, pixels are cut to a tenth."""
  # Attributes are escaped as well as children: labels are keys of files that anyone may have written.
  fields = "".join(
    f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.1f}" if isinstance(value, float) else value)}"'
    for key, value in attributes.items()
  )
  return (
    Markup(f"<{name}{fields}>")
    + Markup("").join(escape(child) for child in children)
    + Markup(f"</{name}>")
  )


def svg(width: int, height: int, label: str, parts: Iterable[Markup], **attributes: Any) -> Markup:
  """A whole chart, with what it is called for who cannot see it."""
  return tag(
    "svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label, **attributes
  )


def path(points: Iterable[tuple[float, float]], **attributes: Any) -> Markup:
  """A line through points in pixels."""
  return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), **attributes)


def number(value: float, digits: int = 2) -> str:
  """A number as a person writes it: a real minus sign, `digits` decimals below 10 and fewer above, 1.4e-05 if tiny."""
  # A tiny number is written with an exponent: 0.00 would say that it is nothing.
  if 0 < abs(value) < 0.5 * 10.0**-digits:
    text = f"{value:.2g}"
  else:
    decimals = digits - (abs(value) >= 10) - (abs(value) >= 100)
    text = f"{value:,.{max(decimals, 0) if abs(value) < 1000 else 0}f}"
  return text.replace("-", "−")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """About `count` round numbers (1, 2 or 5 times a power of ten) inside [low, high]."""
  # Of the round steps, the one that comes closest to the wanted number of ticks. Steps below the floor are no numbers.
  span = max(high - low, _LEAST) if high > low else 1.0
  power = 10.0 ** math.floor(math.log10(span / count))
  step = min((power * m for m in (1, 2, 5, 10)), key=lambda s: abs(span / s - count))
  return [
    round(i * step, 3 - math.floor(math.log10(step)))
    for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
  ]


def tick_label(value: float, all_ticks: Sequence[float]) -> str:
  """One tick as it is written, with as many digits as tell it from its neighbours."""
  step = all_ticks[1] - all_ticks[0] if len(all_ticks) > 1 else abs(value) or 1
  if abs(value) >= 1e9 or (step < 1e-6 and abs(value) < 1e-3):
    return f"{value:g}".replace("-", "−")  # of all its digits there is no room
  if abs(value) >= 10_000:
    return f"{value / 1000:g}k".replace("-", "−")
  return f"{value:.{max(0, math.ceil(-math.log10(step) - 1e-9))}f}".replace("-", "−")


class Axes:
  """A plot area in pixels with linear scales, and the grid that goes behind it."""

  def __init__(
    self, x: tuple[float, float], y: tuple[float, float], box: tuple[float, float, float, float]
  ):
    # Beyond this the difference of two numbers may be infinite.
    x, y = (tuple(min(max(float(end), -_MOST), _MOST) for end in ends) for ends in (x, y))
    self.low_x, self.high_x = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
    self.low_y, self.high_y = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
    self.left, self.top, self.right, self.bottom = box

  def x(self, value: float) -> float:
    """Pixels from the left; what is beyond an end is drawn on it."""
    share = (min(max(value, self.low_x), self.high_x) - self.low_x) / (self.high_x - self.low_x)
    return self.left + share * (self.right - self.left)

  def y(self, value: float) -> float:
    """Pixels from the top, likewise."""
    share = (min(max(value, self.low_y), self.high_y) - self.low_y) / (self.high_y - self.low_y)
    return self.bottom - share * (self.bottom - self.top)

  def grid(
    self,
    x_label: str = "",
    y_label: str = "",
    marks: Sequence[tuple[float, str]] = (),
  ) -> list[Markup]:
    """Lines at round heights, and what stands beside both axes; `marks` are labels of the lower one by their place."""
    xs, ys = ticks(self.low_x, self.high_x, 4), ticks(self.low_y, self.high_y, 4)
    marks = marks or [(t, tick_label(t, xs)) for t in xs]
    parts = [
      tag(
        "line",
        x1=self.left,
        x2=self.right,
        y1=self.y(t),
        y2=self.y(t),
        class_="zero" if t == 0 else "grid",
      )
      for t in ys
    ]

    # Labels stand outside of the plot area, clear of what is drawn in it.
    parts += [
      tag("text", tick_label(t, ys), x=self.left - 6, y=self.y(t) + 4, class_="tick end")
      for t in ys
    ]
    parts += [
      tag("text", text, x=self.x(t), y=self.bottom + 16, class_="tick middle") for t, text in marks
    ]

    middle = (self.left + self.right) / 2
    parts.append(
      tag("text", x_label, x=middle, y=self.bottom + 33, class_="axis middle")
      if x_label
      else Markup("")
    )
    if y_label:
      parts.append(tag("text", y_label, x=self.left - 6, y=self.top - 8, class_="axis"))
    return parts
