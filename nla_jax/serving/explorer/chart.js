// Effect against strength, as one SVG: the edit as a full line, its controls as thin ones.

import { element, written } from "./dom.js";

const WIDTH = 560,
  HEIGHT = 190,
  LEFT = 44,
  RIGHT = 12,
  TOP = 12,
  BOTTOM = 30;

const svg = (name, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

/** Round numbers that divide a range into a few steps. */
const ticks = (low, high) => {
  const raw = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * power >= raw) * power;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step)
    found.push(Math.abs(value) < step * 1e-6 ? 0 : value);
  return found;
};

const digits = (values) =>
  values.every((value) => Number.isInteger(value))
    ? 0
    : values.every((value) => Number.isInteger(Math.round(value * 1e6) / 1e5))
      ? 1
      : 2;

/** `curves`: [{name, label, points: [[x, y]]}]. */
export const chart = (curves, label) => {
  const points = curves.flatMap((curve) => curve.points).filter(([, y]) => Number.isFinite(y));
  if (!points.length) return null;
  const xs = [...new Set(points.map(([x]) => x).concat(0))];
  const ys = points.map(([, y]) => y).concat(0);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const low = Math.min(...ys);
  const high = Math.max(...ys) === low ? low + 1 : Math.max(...ys);
  const x = (value) => LEFT + ((value - left) / (right - left || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);

  const rows = ticks(low, high);
  const grid = rows.flatMap((value) => [
    svg("line", {
      class: value === 0 ? "zero" : "grid",
      x1: LEFT,
      x2: WIDTH - RIGHT,
      y1: y(value),
      y2: y(value),
    }),
    svg("text", { class: "tick end", x: LEFT - 8, y: y(value) + 4 }, written(value, digits(rows))),
  ]);
  const feet = xs.map((value) =>
    svg("text", { class: "tick middle", x: x(value), y: HEIGHT - 10 }, written(value, value % 1 ? 2 : 0)),
  );
  const lines = curves.flatMap((curve) => {
    const shown = [[0, 0], ...curve.points]
      .sort((a, b) => a[0] - b[0])
      .filter(([, value]) => Number.isFinite(value));
    return [
      svg("polyline", {
        class: "line " + curve.name,
        points: shown.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" "),
      }),
      ...curve.points
        .filter(([, value]) => Number.isFinite(value))
        .map(([a, b]) => svg("circle", { class: "dot " + curve.name, cx: x(a), cy: y(b), r: 3 })),
    ];
  });
  return element(
    "figure",
    { class: "effect" },
    element("figcaption", {}, label, " against strength α"),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label + " against strength" },
      ...grid,
      ...feet,
      ...lines.reverse(),
    ),
    element(
      "ul",
      { class: "keyline" },
      curves.map((curve) => element("li", { class: curve.name }, element("i", { class: "key" }), curve.label)),
    ),
  );
};
