// One explained token: its context, its samples side by side, and what they agree on.

import { claimList } from "./claims.js";
import { byId, element, isNumber, visible, written } from "./dom.js";
import { context } from "./tokens.js";
import { best, chipAt, confidence, shadeOf, setFocus, tell, view } from "./view.js";
import { inCommon, marked } from "./words.js";

/** FVE as a bar and a number, with what it is measured against. */
export const meter = (fve) => {
  if (!isNumber(fve)) return element("span", { class: "meter none" }, "no FVE");
  return element(
    "span",
    { class: "meter " + shadeOf(fve), title: "FVE = 1 − mse / baseline, of this activation" },
    element("span", { class: "label" }, "FVE " + written(fve)),
    element("span", { class: "track" }, element("span", { class: "fill" })),
    element("span", { class: "confidence " + confidence(fve).toLowerCase() }, confidence(fve)),
  );
};

/** What has to be said where the words carry little of the activation. */
const warning = (sample) => {
  if (sample.text === null) return null;
  const { fve } = sample;
  if (!isNumber(fve))
    return "This pair names no baseline, so nothing says how much of the activation these words carry.";
  if (fve < 0)
    return "Below zero: always answering the average activation would be closer than these words. Do not lean on them.";
  return confidence(fve) === "Low"
    ? `Low FVE: these words rebuild ${Math.round(fve * 100)} % of the activation's variance. Most of it is not in them.`
    : null;
};

export const markSearched = (text) => {
  const query = view.query.trim().toLowerCase();
  if (!query) return [text];

  const lower = text.toLowerCase();
  const runs = [];
  let from = 0;
  for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
    runs.push(text.slice(from, at), element("mark", { class: "hit" }, text.slice(at, at + query.length)));
    from = at + query.length;
  }
  return [...runs, text.slice(from)];
};

/** A text in paragraphs, with its words marked: those that are searched, or else those that samples share. */
export const prose = (text, markOf = () => null) =>
  visible(text)
    .trim()
    .split(/\n\s*\n/)
    .map((paragraph) => {
      const searched = markSearched(paragraph);
      return element(
        "p",
        { dir: "auto" },
        searched.length > 1
          ? searched
          : marked(paragraph, markOf).map((run) =>
              run.mark ? element("mark", { class: run.mark }, run.text) : run.text,
            ),
      );
    });

const sampleCard = (sample, index, count, markOf) => {
  const name = count > 1 ? element("span", { class: "quiet" }, index ? `sample ${index + 1}` : "best") : null;
  const note = warning(sample);
  return element(
    "article",
    { class: "sample" },
    element("header", {}, name, sample.text === null ? null : meter(sample.fve)),
    element(
      "div",
      { class: "explanation" },
      sample.text === null
        ? element(
            "p",
            { class: "missing" },
            "The verbalizer's answer is no explanation" + (sample.reason ? `: ${visible(sample.reason)}` : "."),
            sample.answer ? element("span", { class: "answer" }, visible(sample.answer)) : null,
          )
        : prose(sample.text, markOf),
    ),
    note && element("p", { class: "lownote" }, note),
    claimList(sample.claims),
  );
};

/** Marks by how many of the samples a word is in; what every one of them says is the strongest. */
const agreementMarks = (samples) => {
  const texts = samples.map((sample) => sample.text).filter((text) => text !== null);
  const counts = inCommon(texts);
  return {
    markOf: (word) => (counts.has(word) ? (counts.get(word) === texts.length ? "every" : "some") : null),
    every: [...counts].filter(([, count]) => count === texts.length).map(([word]) => word),
    n: texts.length,
  };
};

const agreementLine = (reading, marks) => {
  if (reading.samples.length < 2) return null;
  const words = marks.every.slice(0, 12).map(visible).join(", ");
  return element(
    "p",
    { class: "agreement" },
    isNumber(reading.agreement)
      ? element(
          "span",
          { title: "of each two samples the share of words in common, on average" },
          "Agreement ",
          element("b", {}, written(reading.agreement)),
          " · ",
        )
      : null,
    words
      ? element("span", {}, `in all ${marks.n}: `, element("mark", { class: "every" }, words))
      : `no telling word is in all ${marks.n} samples`,
  );
};

const facts = (position, reading) => {
  const chip = chipAt(position);
  const { token } = chip;
  const sample = best(reading);
  return element(
    "p",
    { class: "facts quiet" },
    [
      `position ${position}`,
      token.role,
      token.section !== "content" ? token.section : null,
      isNumber(reading?.norm) ? `norm ${written(reading.norm, 1)}` : null,
      isNumber(sample?.cosine) ? `cosine ${written(sample.cosine, 3)}` : null,
      reading?.best_of > 1 ? `best of ${reading.best_of}` : null,
    ]
      .filter(Boolean)
      .map((one) => element("span", {}, one)),
  );
};

/** Tokens that share a character: which of them is shown. */
const fragments = (position) => {
  const chip = chipAt(position);
  if (chip.positions.length < 2) return null;
  return element(
    "p",
    { class: "fragments quiet" },
    "token of this character: ",
    chip.positions.map((one, i) =>
      element(
        "button",
        {
          type: "button",
          class: "link",
          "aria-pressed": String(one === position),
          onclick: () => {
            chip.positions.forEach((each) => view.selected.delete(each));
            view.selected.add(one);
            tell("selection");
            setFocus(one);
          },
        },
        `${i + 1}`,
      ),
    ),
  );
};

const explainButton = () =>
  element("button", { type: "button", onclick: () => byId("explain").click() }, "Explain");

/** One position: its context, its explanations, and what is known of it. */
export const positionCard = (position, { other = null, actions = null } = {}) => {
  const reading = view.readings.get(position);
  const card = element(
    "section",
    { class: "position" },
    context(position),
    facts(position, reading),
    fragments(position),
  );
  if (!reading) card.append(element("p", { class: "missing" }, "Not explained yet."), explainButton());
  else if (reading.state === "pending") {
    card.append(
      element(
        "div",
        { class: "explanation pending", "aria-busy": "true" },
        reading.partial
          ? prose(reading.partial)
          : element("p", { class: "missing" }, "The verbalizer is at work…"),
      ),
    );
  } else {
    const marks = agreementMarks(reading.samples);
    const markOf = other ? (word) => (other.has(word) ? "every" : null) : marks.markOf;
    card.append(
      ...[
        agreementLine(reading, marks),
        element(
          "div",
          { class: "samples" },
          reading.samples.map((sample, i) => sampleCard(sample, i, reading.samples.length, markOf)),
        ),
      ].filter(Boolean),
    );
    if (actions) card.append(actions);
  }
  return card;
};
