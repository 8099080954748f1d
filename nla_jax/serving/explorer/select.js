// Choosing tokens: by click, by drag, with Shift, and by keyboard alone.

import { byId } from "./dom.js";
import { nodeOf } from "./tokens.js";
import { chipAt, positionOf, setFocus, shownChips, tell, view } from "./view.js";

let anchor = null; // chip at which a span begins
let drag = null; // {kept} while the pointer is down

const chipOf = (node) => view.chips[Number(node?.closest?.(".chip")?.dataset.at)];

const choose = (positions) => {
  view.selected = new Set(positions);
  tell("selection");
};

/** Chooses the tokens shown from one chip to another, with those of `kept`. */
const chooseSpan = (from, to, kept = []) => {
  const [low, high] = [Math.min(from.at, to.at), Math.max(from.at, to.at)];
  choose([
    ...kept,
    ...shownChips()
      .filter((chip) => chip.at >= low && chip.at <= high)
      .map(positionOf),
  ]);
};

export const toggle = (chip) => {
  const next = new Set(view.selected);
  const had = chip.positions.some((position) => next.has(position));
  chip.positions.forEach((position) => next.delete(position));
  if (!had) next.add(positionOf(chip));
  choose(next);
};

/** Moves to a chip: it gets the keyboard, and its explanation is shown. */
export const goTo = (chip, keyboard = true) => {
  if (!chip) return;
  setFocus(positionOf(chip));
  if (keyboard) nodeOf(chip)?.focus({ preventScroll: true });
  nodeOf(chip)?.scrollIntoView({ block: "nearest" });
};

const press = (event) => {
  const chip = chipOf(event.target);
  if (!chip || event.button !== 0) return;
  if (event.shiftKey && anchor) {
    event.preventDefault();
    chooseSpan(anchor, chip, event.ctrlKey || event.metaKey ? view.selected : []);
  } else if (event.ctrlKey || event.metaKey || event.pointerType === "touch") {
    anchor = chip;
    toggle(chip);
  } else {
    anchor = chip;
    drag = { kept: [] };
    choose([positionOf(chip)]);
  }
  goTo(chip);
};

const move = (event) => {
  if (!drag || !anchor) return;
  const chip = chipOf(document.elementFromPoint(event.clientX, event.clientY));
  if (chip && positionOf(chip) !== view.focus) {
    chooseSpan(anchor, chip, drag.kept);
    setFocus(positionOf(chip));
  }
};

/** The chip above or below another: of the nearest line, the one that is nearest across. */
const vertical = (from, down) => {
  const place = (chip) => nodeOf(chip).getClientRects()[0];
  const start = place(from);
  let line = null;
  let found = null;
  let distance = Infinity;
  const chips = shownChips().filter((chip) => (down ? chip.at > from.at : chip.at < from.at));
  for (const chip of down ? chips : chips.reverse()) {
    const box = place(chip);
    if (!box || Math.abs(box.top - start.top) < 4) continue;
    if (line !== null && Math.abs(box.top - line) > 4) break;
    line = box.top;
    if (Math.abs(box.left - start.left) < distance) [found, distance] = [chip, Math.abs(box.left - start.left)];
  }
  return found;
};

const target = (key, from, chips) => {
  const place = chips.indexOf(from);
  if (key === "ArrowLeft") return chips[Math.max(0, place - 1)];
  if (key === "ArrowRight") return chips[Math.min(chips.length - 1, place + 1)];
  if (key === "Home") return chips[0];
  if (key === "End") return chips.at(-1);
  return vertical(from, key === "ArrowDown");
};

const keyDown = (event) => {
  const chips = shownChips();
  const from = chipOf(event.target);
  if (!from) return;
  if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
    const to = target(event.key, from, chips);
    event.preventDefault();
    if (!to) return;
    if (event.shiftKey) chooseSpan(anchor ?? (anchor = from), to);
    else anchor = to;
    goTo(to);
  } else if (event.key === " ") {
    event.preventDefault();
    anchor = from;
    toggle(from);
  } else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    choose(chips.map(positionOf));
  }
};

/** Chooses by a word: "last", "assistant", "every" or "none". */
export const chooseBy = (word) => {
  const chips = shownChips();
  const content = chips.filter((chip) => chip.token.section === "content" || !chip.token.section);
  const reply = content.filter((chip) => chip.token.role === "assistant");
  const found = {
    last: chips.slice(-1),
    assistant: reply,
    every: content.filter((_, i) => i % 8 === 7),
    none: [],
  }[word];
  choose(found.map(positionOf));
  if (found.length) goTo(found.at(-1), false);
};

export const letGo = () => choose([]);

/** The next explained token before or after the one in focus. */
export const nextRead = (step) => {
  const read = [...view.readings.keys()].sort((a, b) => a - b);
  const found =
    step > 0
      ? read.find((position) => position > (view.focus ?? -1))
      : read.findLast((position) => position < (view.focus ?? Infinity));
  goTo(chipAt(found ?? (step > 0 ? read[0] : read.at(-1))));
};

export const startSelection = () => {
  const tokens = byId("tokens");
  tokens.addEventListener("pointerdown", press);
  tokens.addEventListener("pointermove", move);
  tokens.addEventListener("keydown", keyDown);
  window.addEventListener("pointerup", () => {
    drag = null;
  });
  window.addEventListener("pointercancel", () => {
    drag = null;
  });
  document
    .querySelectorAll("[data-choose]")
    .forEach((button) => button.addEventListener("click", () => chooseBy(button.dataset.choose)));
};
