// The conversation as chips, one a token, grouped by message.

import { byId, element, glyphs, plural, replace, visible, written } from "./dom.js";
import { best, chipAt, isTemplate, on, positionOf, SHADES, shadeOf, tell, view } from "./view.js";

const nodes = []; // of each chip, its element

export const nodeOf = (chip) => (chip ? nodes[chip.at] : undefined);

/** What a chip is, in words: for a pointer that rests on it and for a screen reader. */
const describe = (chip) => {
  const { token } = chip;
  const reading = view.readings.get(positionOf(chip));
  const fve = best(reading)?.fve;
  return [
    `position ${chip.positions.join(", ")}`,
    token.role,
    isTemplate(token) ? token.section : null,
    token.channel,
    chip.positions.length > 1
      ? `${chip.positions.length} tokens share this character; the last one is read`
      : null,
    reading?.state === "done" ? "FVE " + written(fve) : (reading?.state ?? null),
  ]
    .filter(Boolean)
    .join(" · ");
};

const chipNode = (chip) => {
  const text = visible(chip.text);
  const shown = glyphs(chip.text);
  const node = element(
    "span",
    {
      class: "chip" + (isTemplate(chip.token) ? " template" : ""),
      role: "option",
      tabindex: "-1",
      "aria-selected": "false",
      "data-at": chip.at,
    },
    shown === "" ? "∅" : shown,
  );
  // The glyph stands for the end of a line, and the line ends there too.
  if (text.endsWith("\n") || /^\n+$/.test(text)) node.append("\n");
  nodes[chip.at] = node;
  return node;
};

const messageNode = (index, chips, onEdit) => {
  const { role } = chips[0].token;
  const only = chips.every((chip) => isTemplate(chip.token));
  const name = role ?? (view.input.messages ? "template" : "text");
  const editable = view.input.messages?.[index] && typeof view.input.messages[index].content === "string";
  return element(
    "div",
    { class: "message" + (only ? " template" : ""), role: "group", "aria-label": name },
    element(
      "div",
      { class: "role" },
      element("span", {}, name),
      editable &&
        element(
          "button",
          {
            type: "button",
            class: "link edit",
            onclick: (event) => onEdit(index, event.target.closest(".message")),
          },
          "edit",
        ),
    ),
    element("div", { class: "words" }, ...chips.map(chipNode)),
  );
};

/** Draws all chips anew. `onEdit(index)` is called for a message that shall be edited. */
export const drawTokens = (onEdit) => {
  nodes.length = 0;
  const groups = [];
  for (const chip of view.chips) {
    const index = chip.token.message_index ?? null;
    if (groups.length && groups.at(-1).index === index) groups.at(-1).chips.push(chip);
    else groups.push({ index, chips: [chip] });
  }
  replace(
    byId("tokens"),
    groups.map(({ index, chips }) => messageNode(index, chips, onEdit)),
  );
  byId("tokens").classList.toggle("plain", !view.input?.messages);
  marks();
};

/** Brings one chip's look up to date with its reading, the choice and the search. */
const mark = (chip, matches) => {
  const node = nodes[chip.at];
  const reading = view.readings.get(positionOf(chip));
  const fve = best(reading)?.fve;
  const chosen = chip.positions.some((position) => view.selected.has(position));
  node.setAttribute("aria-selected", String(chosen));
  node.classList.toggle("focus", chip.positions.includes(view.focus));
  node.classList.toggle("pinned", chip.positions.includes(view.pinned));
  node.classList.toggle("pending", reading?.state === "pending");
  node.classList.toggle("failed", reading?.state === "failed");
  node.classList.toggle("found", matches.has(positionOf(chip)));
  node.classList.remove(...SHADES);
  node.classList.add(...shadeOf(fve).split(" ").filter(Boolean));
  node.title = describe(chip);
};

let found = new Set();
export const setFound = (positions) => {
  found = new Set(positions);
  marks();
};

/** Brings all chips up to date, and the one that the Tab key reaches. */
export const marks = () => {
  view.chips.forEach((chip) => nodes[chip.at] && mark(chip, found));
  const hidden = !view.settings.template;
  byId("tokens").classList.toggle("hide", hidden);
  const home = chipAt(view.focus) ?? view.chips.find((chip) => !(hidden && isTemplate(chip.token)));
  nodes.forEach((node) => {
    node.tabIndex = -1;
  });
  if (home) nodes[home.at].tabIndex = 0;
  const count = view.selected.size;
  byId("chosen").textContent = count ? plural(count, "token") : "no tokens";
  byId("explain").disabled = !count;
};

/** Puts a token into its context, for a headline: some characters before and after it. */
export const context = (position, around = 60) => {
  const chip = chipAt(position);
  if (!chip) return null;
  const near = (one) => !isTemplate(one.token) && one.token.message_index === chip.token.message_index;
  // Characters, not halves of them.
  const joined = (chips) => [
    ...chips
      .filter(near)
      .map((one) => one.text)
      .join(""),
  ];
  const before = joined(view.chips.slice(Math.max(0, chip.at - around), chip.at))
    .slice(-around)
    .join("");
  const after = joined(view.chips.slice(chip.at + 1, chip.at + around))
    .slice(0, around)
    .join("");
  return element(
    "p",
    { class: "context" },
    glyphs(before),
    element("mark", {}, glyphs(chip.text) || "∅"),
    element("span", { class: "after" }, glyphs(after)),
  );
};

on("selection focus", marks);
on("reading", (position) => {
  const chip = chipAt(position);
  if (chip && nodes[chip.at]) mark(chip, found);
});

/** Shows or hides what the template writes; chosen tokens that vanish are let go. */
export const showTemplate = (shown) => {
  view.settings.template = shown;
  if (!shown) {
    view.selected = new Set([...view.selected].filter((position) => !isTemplate(chipAt(position).token)));
  }
  tell("selection");
};
