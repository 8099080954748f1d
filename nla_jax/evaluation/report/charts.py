"""The report's charts as inline SVG: functions of numbers that return markup.

Drawn here rather than by matplotlib because they inherit the page: every colour is a CSS class of report.css, so one
file follows the reader's light or dark scheme, text stays text in the page's font, and a chart is 1 to 40 kB
(matplotlib writes fixed colours, its own fonts, and several times the size). Values that are None or not finite are
left out, never drawn as zero.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from nla_jax.axes import Axes as _Axes
from nla_jax.axes import Points, number, ticks
from nla_jax.axes import path as _path
from nla_jax.axes import svg as _svg
from nla_jax.axes import tag as _tag
from nla_jax.axes import tick_label as _tick_label

_LABEL = 32  # characters of a row's label that fit beside the forest
MAX_POINTS = 160  # longer curves are drawn as the mean and range of equal runs of steps


def forest(rows: Sequence[dict[str, Any]]) -> Markup:
  """FVE and interval of each row on one axis: {"label", "kind", "value", "ci95"}; kind is a CSS class.

  The axis always holds 0 and 1 and never goes below -1: what lies further left is drawn as an arrow at the edge.
  """
  # The axis is set by intervals, not by points: a wide one must be seen whole.
  lows = [r["ci95"][0] if r["ci95"] else r["value"] for r in rows]
  width, step, top = 952, 28, 30
  height = top + step * len(rows) + 34
  axes = _Axes(
    (max(-1.0, min([0.0, *lows])) - 0.03, 1.03), (0, 1), (236, top - 6, 742, height - 30)
  )

  marks = ticks(axes.low_x, axes.high_x, 8)
  parts = [_rule(axes, t) for t in marks]
  parts += [
    _tag("text", _tick_label(t, marks), x=axes.x(t), y=axes.bottom + 18, class_="tick middle")
    for t in marks
  ]
  parts += [
    _tag("text", text, x=axes.x(at), y=14, class_="axis middle")
    for at, text in ((0, "always the mean"), (1, "perfect"))
  ]

  for i, row in enumerate(rows):
    y = top + step * (i + 0.5)
    if i and row["kind"] != rows[i - 1]["kind"]:
      parts.append(_tag("line", x1=0, x2=width, y1=y - step / 2, y2=y - step / 2, class_="grid"))
    parts += _forest_row(axes, row, y, "label strong" if i == 0 else "label")
  return _svg(width, height, "Fraction of variance explained, with 95 % intervals", parts)


def _rule(axes: _Axes, at: float) -> Markup:
  x, kind = axes.x(at), "zero" if at == 0 else "grid"
  return _tag("line", x1=x, x2=x, y1=axes.top, y2=axes.bottom, class_=kind)


def _forest_row(axes: _Axes, row: dict[str, Any], y: float, label_class: str) -> list[Markup]:
  """One row of the forest: label, interval, point and both as numbers, at height `y`."""
  kind, label = row["kind"], row["label"]
  low, high = row["ci95"] or (row["value"], row["value"])

  # SVG does not wrap: a label of a key that nobody wrote for people would run into the chart. The table has all of it.
  if len(label) > _LABEL:
    label = label[: _LABEL - 1] + "…"
  parts = [_tag("text", label, x=0, y=y + 4, class_=label_class)]

  if high > axes.low_x:
    parts.append(
      _tag("line", x1=axes.x(low), x2=axes.x(high), y1=y, y2=y, class_=f"whisker {kind}")
    )
  if row["value"] >= axes.low_x:
    parts.append(_tag("circle", cx=axes.x(row["value"]), cy=y, r=4.5, class_=f"dot {kind}"))
  else:
    parts.append(_tag("text", "◀", x=axes.left, y=y + 4, class_=f"arrow {kind}"))

  interval = f"[{number(low)}, {number(high)}]" if row["ci95"] else "no interval"
  parts.append(_tag("text", number(row["value"]), x=808, y=y + 4, class_="label end strong"))
  parts.append(_tag("text", interval, x=822, y=y + 4, class_="label quiet"))
  return parts


def _runs(points: Points) -> list[tuple[float, float, float, float]]:
  """(x, mean, least, greatest) of equal runs of points, at most MAX_POINTS of them."""
  # Means and ranges, not every tenth point: a spike of one step stays visible.
  size = math.ceil(len(points) / MAX_POINTS)
  parts = [np.array(points[i : i + size], float) for i in range(0, len(points), size)]
  return [(*part.mean(axis=0), part[:, 1].min(), part[:, 1].max()) for part in parts]


def lines(series: dict[str, Points], label: str, x_label: str = "step", y_label="") -> Markup:
  """One panel of curves: the name of each series and its (x, y) points, sorted by x, which is a step by default."""
  # The range of what is drawn, with some room; a curve that does not move gets room too.
  runs = {name: _runs(points) for name, points in series.items()}
  everything = np.array([run for name in runs for run in runs[name]])
  low, high = float(everything[:, 2].min()), float(everything[:, 3].max())
  flat = high / 2 - low / 2 < 1e-9 * max(abs(low), abs(high))
  pad = 0.06 * (high - low) if not flat else 0.05 * abs(high) or 0.5
  axes = _Axes(
    (everything[:, 0].min(), everything[:, 0].max()),
    (low - pad, high + pad),
    (44, 26 if y_label else 10, 290, 140),
  )

  parts = axes.grid(x_label, y_label)
  for i, (name, run) in enumerate(runs.items()):
    places = [(axes.x(x), axes.y(mean)) for x, mean, _, _ in run]

    # The band only where points were merged: elsewhere it has no width.
    if len(run) < len(series[name]):
      edge = [(axes.x(r[0]), axes.y(r[3])) for r in run] + [
        (axes.x(r[0]), axes.y(r[2])) for r in reversed(run)
      ]
      parts.append(_path(edge, class_=f"band s{i % 8 + 1}"))
    if len(run) > 1:
      parts.append(_path(places, class_=f"line s{i % 8 + 1}"))
    # Few points are measured steps, which a line alone would not show.
    if len(run) <= 30:
      parts += [_tag("circle", cx=x, cy=y, r=2.5, class_=f"point s{i % 8 + 1}") for x, y in places]
  return _svg(300, 178, label, parts)


def ranges(
  names: Sequence[str],
  series: Mapping[str, Sequence[tuple[int, float, tuple[float, float] | None]]],
  label: str,
) -> Markup:
  """FVE with its interval at each range of positions: the name of each series and its (index, value, ci95)."""
  # Zero is always seen: a curve below it explains nothing, however it bends.
  ends = [0.0]
  for _, value, ci95 in (point for points in series.values() for point in points):
    ends += [value, *(ci95 or ())]
  low, high = max(min(ends), -1.0), max(ends)
  pad = 0.06 * (high - low) or 0.5
  axes = _Axes((-0.5, len(names) - 0.5), (low - pad, high + pad), (44, 26, 450, 240))

  shown = [name.replace("-", "–") for name in names]
  parts = axes.grid(x_label="position, tokens", y_label="FVE", marks=list(enumerate(shown)))
  for i, points in enumerate(series.values()):
    # Side by side, so that no interval hides another.
    aside, kind = 0.12 * (i - (len(series) - 1) / 2), f"s{i % 8 + 1}"
    places = [(axes.x(at + aside), axes.y(value)) for at, value, _ in points]
    for j, (here, there) in enumerate(itertools.pairwise(places)):
      # No line over a range that was not measured.
      if points[j + 1][0] - points[j][0] == 1:
        parts.append(_path([here, there], class_=f"line {kind}"))
    for (x, y), (_, _, ci95) in zip(places, points):
      if ci95:
        bottom, top = map(axes.y, ci95)
        parts.append(_tag("line", x1=x, x2=x, y1=bottom, y2=top, class_=f"whisker {kind}"))
      parts.append(_tag("circle", cx=x, cy=y, r=4.0, class_=f"dot {kind}"))
  return _svg(464, 282, label, parts)


def _robust_range(values: np.ndarray, high: float | None = None) -> tuple[float, float]:
  """All values, but at most the 1st to the 99th percentile with some room, so that outliers do not flatten it."""
  low_q, high_q = np.quantile(values, [0.01, 0.99])
  room = 0.25 * (high_q - low_q)
  low = max(float(values.min()), float(low_q - room))
  return low, high or min(float(values.max()), float(high_q + room))


def histogram(series: dict[str, np.ndarray], label: str, bins: int = 36) -> Markup:
  """Shares of activations by FVE: the first series filled, the others outlined; outliers go in the first bin."""
  # One set of bins for all series, or their shares could not be compared.
  low, _ = _robust_range(np.concatenate(list(series.values())))
  edges = np.linspace(min(low, 0.0), 1.0, bins + 1)
  shares = {
    name: np.histogram(np.clip(v, edges[0], 1.0), edges)[0] / len(v) * 100
    for name, v in series.items()
  }

  axes = _Axes(
    (edges[0], 1.0), (0.0, max(float(s.max()) for s in shares.values()) * 1.05), (44, 26, 450, 240)
  )
  parts = axes.grid(x_label="FVE of one activation", y_label="% of activations")
  for i, share in enumerate(shares.values()):
    # Steps, not a curve: a bin's share holds for all of its width.
    corners = [(axes.x(edges[0]), axes.y(0))]
    for j, value in enumerate(share):
      corners += [(axes.x(edges[j]), axes.y(value)), (axes.x(edges[j + 1]), axes.y(value))]
    parts.append(
      _path([*corners, (axes.x(1.0), axes.y(0))], class_=f"{'area' if i == 0 else 'line'} s{i + 1}")
    )
  parts.append(_tag("line", x1=axes.x(0), x2=axes.x(0), y1=axes.top, y2=axes.bottom, class_="zero"))
  return _svg(464, 282, label, parts)


def scatter(
  x: np.ndarray, y: np.ndarray, x_label: str, y_label: str, *, diagonal: bool = False
) -> Markup:
  """One dot for each activation; dots beyond the axes are drawn on their edge."""
  axes = _Axes(_robust_range(x), _robust_range(y, high=1.0), (44, 26, 450, 240))
  parts = axes.grid(x_label=x_label, y_label=y_label)

  # The diagonal only where both axes have it: the two ranges differ.
  low, high = max(axes.low_x, axes.low_y), min(axes.high_x, axes.high_y)
  if diagonal and low < high:
    parts.append(
      _path([(axes.x(low), axes.y(low)), (axes.x(high), axes.y(high))], class_="diagonal")
    )
  parts += [_tag("circle", cx=axes.x(a), cy=axes.y(b), r=2, class_="mote") for a, b in zip(x, y)]
  return _svg(464, 282, f"{y_label} against {x_label}", parts)


def stacked_bar(shares: Sequence[float]) -> Markup:
  """One bar of parts that sum to 1, in the order of the series colours."""
  parts, left = [], 0.0
  for i, share in enumerate(shares):
    # A gap between parts, but never nothing of a part.
    parts.append(
      _tag(
        "rect",
        x=left,
        y=0,
        width=max(share * 952 - 1.5, 0.5),
        height=18,
        class_=f"part s{i % 8 + 1}",
      )
    )
    left += share * 952
  return _svg(952, 18, "Share of time by stage", parts)
