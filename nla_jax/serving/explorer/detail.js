// What stands beside the conversation: the explanation in focus, a second one to compare it with, and a list of all.

import { byId, element, isNumber, plural, redraw, replace, visible, written } from "./dom.js";
import { markSearched, meter, positionCard, prose } from "./reading.js";
import { best, chipAt, on, tell, view } from "./view.js";
import { tellingWords } from "./words.js";

const wordsOf = (position) =>
  tellingWords((view.readings.get(position)?.samples ?? []).map((one) => one.text ?? "").join("\n"));

/** What the first of two activations has and the second lacks: a button, and what the verbalizer made of it. */
const differenceOf = (a, b, onCompare) => {
  const found = view.differences.get(`${a} ${b}`);
  if (!found)
    return element(
      "p",
      { class: "deeds" },
      element("button", { type: "button", onclick: () => onCompare(a, b) }, "Explain the difference"),
    );
  const facts = [
    `position ${a} less position ${b}`,
    isNumber(found.norm) ? `norm ${written(found.norm, 1)}` : null,
    isNumber(found.cosine) ? `cosine ${written(found.cosine, 3)}` : null,
  ];
  return element(
    "article",
    { class: "sample difference" },
    element("p", { class: "facts quiet" }, facts.filter(Boolean).map((one) => element("span", {}, one))),
    element("div", { class: "explanation" }, prose(found.text)),
  );
};

/** Two positions side by side; words that both use are marked. */
const comparison = (a, b, onCompare) => {
  const common = [...wordsOf(a)].filter((word) => wordsOf(b).has(word));
  return element(
    "div",
    {},
    element(
      "p",
      { class: "agreement" },
      "Compared · ",
      common.length
        ? element(
            "span",
            {},
            "in both: ",
            element("mark", { class: "every" }, common.slice(0, 12).map(visible).join(", ")),
          )
        : "no telling word in both",
      " ",
      element("button", { type: "button", class: "link", onclick: () => pin(null) }, "end"),
    ),
    element(
      "div",
      { class: "pair" },
      positionCard(a, { other: wordsOf(b) }),
      positionCard(b, { other: wordsOf(a) }),
    ),
    differenceOf(a, b, onCompare),
  );
};

export const pin = (position) => {
  view.pinned = position;
  tell("focus");
};

const mayWeigh = (position) => {
  const sample = best(view.readings.get(position));
  return view.status.claims_available && sample?.text && !sample.claims;
};

const actionsOf = (position, { onSteer, onWeigh }) =>
  element(
    "p",
    { class: "deeds" },
    element("button", { type: "button", onclick: onSteer }, "Edit and steer"),
    mayWeigh(position)
      ? element("button", { type: "button", onclick: () => onWeigh(position) }, "Weigh the claims")
      : null,
    element(
      "button",
      { type: "button", onclick: () => pin(position) },
      view.pinned === position ? "Kept: now choose another" : "Compare",
    ),
  );

export const drawFocus = (deeds) => {
  const { focus, pinned } = view;
  if (focus === null || !chipAt(focus)) return redraw(byId("focus"));
  if (pinned !== null && pinned !== focus)
    return redraw(byId("focus"), comparison(pinned, focus, deeds.onCompare), actionsOf(focus, deeds));
  return redraw(byId("focus"), positionCard(focus, { actions: actionsOf(focus, deeds) }));
};

/** Every explanation so far, in the order of the tokens, as a list to go through. */
export const drawAll = (goTo) => {
  const positions = [...view.readings.keys()]
    .filter((one) => view.readings.get(one).state === "done")
    .sort((a, b) => a - b);
  if (positions.length < 2) return redraw(byId("all"));
  return redraw(
    byId("all"),
    element("h2", {}, plural(positions.length, "explanation")),
    element(
      "ol",
      { class: "list" },
      positions.map((position) => {
        const sample = best(view.readings.get(position));
        const chip = chipAt(position);
        return element(
          "li",
          {},
          element(
            "button",
            { type: "button", "aria-current": String(position === view.focus), onclick: () => goTo(chip) },
            element("span", { class: "token" }, visible(chip.text).replaceAll("\n", "⏎") || "∅"),
            meter(sample.fve),
            element("span", { class: "start", dir: "auto" }, markSearched(visible(sample.text ?? "—"))),
          ),
        );
      }),
    ),
  );
};

/** What the colour means, with the baseline by name. */
export const drawLegend = () => {
  const { baseline } = view.status;
  replace(
    byId("legend"),
    element("span", {}, "FVE "),
    element("span", { class: "ramp", "aria-hidden": "true" }),
    element(
      "span",
      {},
      isNumber(baseline)
        ? `0 = always the mean (baseline variance ${written(baseline, 3)}) · 1 = perfect`
        : "this pair names no baseline: no FVE",
    ),
  );
};

/** Starts this part; `deeds` are what its buttons do: onSteer, onCompare, onWeigh. */
export const startDetail = (deeds, goTo) => {
  let asked = null;
  // Frames of a stream come faster than the screen is drawn.
  const later = (all) => {
    asked = asked === null ? all : asked || all;
    requestAnimationFrame(() => {
      if (asked === null) return;
      const whole = asked;
      asked = null;
      drawFocus(deeds);
      if (whole) drawAll(goTo);
    });
  };
  on("focus", () => later(true));
  on("reading", (position) => {
    const done = view.readings.get(position)?.state !== "pending";
    if (done || position === view.focus || position === view.pinned) later(done);
  });
  on("input tokens query", () => later(true));
};
