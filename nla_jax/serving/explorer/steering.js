// Steering: an explanation is edited, and the model continues with the difference added, beside three controls.

import { byId, element, redraw, replace, visible } from "./dom.js";
import { diffLine, resultNode } from "./steered.js";
import { best, chipAt, isTemplate, on, tell, view } from "./view.js";
import { difference } from "./words.js";
import { steer } from "./work.js";

const PLACES = { position: "at this token", generated: "at every new token" };
const FROM = { message: "after this message", token: "right after this token" };

let open = null; // {position, text, where, from, strengths, tokens}: what the form holds
let strength = null; // of the arms shown

/** What the model continues from: the conversation up to the token's message, or cut behind the token itself. */
const cut = (position, from) => {
  const { token, at } = chipAt(position);
  const { messages } = view.input;
  const index = token.message_index;
  const content = view.chips.slice(0, at + 1).filter((chip) => !isTemplate(chip.token));
  if (!messages)
    return from === "token" ? { text: content.map((chip) => chip.text).join("") } : { text: view.input.text };
  if (!Number.isInteger(index)) return { messages };
  const until = messages.slice(0, index + 1);
  const last = until.at(-1);
  if (last.role !== "assistant" || from !== "token" || isTemplate(token)) return { messages: until };
  const said = content
    .filter((chip) => chip.token.message_index === index)
    .map((chip) => chip.text)
    .join("");
  return { messages: [...until.slice(0, -1), { ...last, content: said }] };
};

/** Words that the edit put in, then those that it took out: their probabilities are followed. */
const scored = (before, after) => {
  const of = (kind) =>
    difference(before, after)
      .filter((run) => run.kind === kind)
      .flatMap((run) => run.text.match(/[\p{L}\p{N}]+/gu) ?? []);
  return [...new Set([...of("new").slice(0, 3), ...of("gone").slice(0, 3)])];
};

const strengthsOf = (text) =>
  text
    .split(/[\s,;]+/)
    .map(Number)
    .filter((value) => Number.isFinite(value) && value !== 0)
    .slice(0, 8);

const select = (name, options, value) =>
  element(
    "select",
    { name },
    Object.entries(options).map(([key, words]) =>
      element("option", { value: key, selected: key === value }, words),
    ),
  );

const submit = async (guard, original) => {
  const { position, text, where, from, strengths, tokens } = open;
  const words = scored(original, text);
  const request = {
    ...cut(position, from),
    position,
    explanation: original,
    edit: text,
    strengths,
    where,
    tokens,
    words,
  };
  await guard(async () => {
    const result = await steer(request);
    if (!result) return;
    strength = null;
    view.steered = { position, text, where, from, strengths, tokens, result };
    tell("steered");
  });
};

/** The fields that say how the vector is added. `read` brings `open` up to date with them. */
const options = () => {
  const where = select("where", PLACES, open.where);
  const from = select("from", FROM, open.from);
  const shown = open.strengths.join("  ");
  const strengths = element("input", {
    value: shown,
    "aria-label": "Strengths",
    inputmode: "decimal",
    size: "10",
  });
  const tokens = element("input", { type: "number", min: "1", max: "256", value: String(open.tokens) });

  const read = () => {
    const found = strengthsOf(strengths.value);
    Object.assign(open, { strengths: found.length ? found : [1], tokens: Number(tokens.value) || 24 });
    Object.assign(open, { where: where.value, from: from.value });
  };
  const labels = [
    element("label", {}, "add it ", where),
    element("label", {}, "continue ", from),
    element("label", {}, "strengths α ", strengths),
    element("label", {}, "tokens ", tokens),
  ];
  return { labels, read };
};

const form = (guard) => {
  const original = best(view.readings.get(open.position)).text;
  const area = element("textarea", { rows: "6", "aria-label": "Edited explanation", dir: "auto" });
  area.value = open.text;
  const diff = element("p", { class: "diff", dir: "auto", "aria-live": "polite" });
  const go = element("button", { type: "submit", class: "primary" }, "Steer");

  const hint = "Change some words: what they change in the reconstruction is added to the activation.";
  const changed = () => {
    open.text = area.value;
    const same = open.text === original;
    replace(diff, same ? element("span", { class: "quiet" }, hint) : diffLine(original, open.text));
    go.disabled = same || !open.text.trim();
  };
  area.addEventListener("input", changed);
  changed();

  const { labels, read } = options();
  const send = (event) => {
    event.preventDefault();
    read();
    submit(guard, original);
  };
  const line = element("p", { class: "options" }, labels, go);
  return { node: element("form", { class: "steerform", onsubmit: send }, area, diff, line), area };
};

const drawResult = () => {
  const { steered } = view;
  if (!open || !byId("steered")) return;
  const choose = (value) => {
    strength = value;
    drawResult();
  };
  const fits = steered && steered.position === open.position;
  redraw(byId("steered"), fits ? resultNode(steered.result, strength, choose, open.text) : null);
};

const draw = (guard, focus) => {
  const { node, area } = form(guard);
  const name = visible(chipAt(open.position).text).replaceAll("\n", "⏎").trim();
  const close = element(
    "button",
    { type: "button", "aria-label": "Close steering", onclick: closeSteering },
    "×",
  );
  const head = element(
    "header",
    {},
    element("h2", {}, "Edit and steer ", element("span", { class: "token" }, name)),
    close,
  );
  replace(
    byId("steering"),
    element(
      "section",
      { class: "steering", "aria-label": "Steering" },
      head,
      node,
      element("div", { id: "steered" }),
    ),
  );
  drawResult();
  if (!focus) return;
  byId("steering").scrollIntoView({ block: "start" });
  area.focus({ preventScroll: true });
};

export const closeSteering = () => {
  open = null;
  view.steered = null;
  strength = null;
  replace(byId("steering"));
};

/** Opens the form at the position in focus, or at that of the steering that a link holds. */
export const openSteering = (guard, focus = false) => {
  const kept = view.steered && (!focus || view.steered.position === view.focus) ? view.steered : null;
  const position = kept?.position ?? view.focus;
  const text = best(view.readings.get(position))?.text;
  if (!chipAt(position) || !text) return;
  open = {
    position,
    text: kept?.text ?? text,
    where: kept?.where ?? "position",
    from: kept?.from ?? "message",
    strengths: kept?.strengths ?? [0.25, 0.5, 1],
    tokens: kept?.tokens ?? 24,
  };
  draw(guard, focus);
};

export const startSteering = () => on("steered", drawResult);
