// Steering: an explanation is edited, and the model continues with the difference added, beside three controls.

import { byId, element, isNumber, replace, visible, written } from "./dom.js";
import { chart } from "./chart.js";
import { best, chipAt, isTemplate, on, tell, view } from "./view.js";
import { difference } from "./words.js";
import { steer } from "./work.js";

export const MEANING = {
  edit: "steered by the edit", random: "a random vector of equal norm", unedited: "the unedited reconstruction", unrelated: "an edit of an unrelated word",
};
const PLACES = { position: "at this token", generated: "at every new token" };
const FROM = { message: "after this message", token: "right after this token" };

let open = null;      // {position, text, where, from, strengths, tokens}: what the form holds
let strength = null;  // of the arms shown

/** What the model continues from: the conversation up to the token's message, or cut behind the token itself. */
const cut = (position, from) => {
  const { token, at } = chipAt(position), { messages } = view.input, index = token.message_index;
  const content = view.chips.slice(0, at + 1).filter((chip) => !isTemplate(chip.token));
  if (!messages) return from === "token" ? { text: content.map((chip) => chip.text).join("") } : { text: view.input.text };
  if (!Number.isInteger(index)) return { messages };
  const until = messages.slice(0, index + 1), last = until.at(-1);
  if (last.role !== "assistant" || from !== "token" || isTemplate(token)) return { messages: until };
  const said = content.filter((chip) => chip.token.message_index === index).map((chip) => chip.text).join("");
  return { messages: [...until.slice(0, -1), { ...last, content: said }] };
};

/** Words that the edit put in, then those that it took out: their probabilities are followed. */
const scored = (before, after) => {
  const of = (kind) => difference(before, after).filter((run) => run.kind === kind).flatMap((run) => run.text.match(/[\p{L}\p{N}]+/gu) ?? []);
  return [...new Set([...of("new").slice(0, 3), ...of("gone").slice(0, 3)])];
};

const strengthsOf = (text) => text.split(/[\s,;]+/).map(Number).filter((value) => Number.isFinite(value) && value !== 0).slice(0, 8);

const diffLine = (before, after) => difference(before, after).map((run) =>
  run.kind === "same" ? visible(run.text) : element(run.kind === "new" ? "ins" : "del", {}, visible(run.text)));

const select = (name, options, value) => element("select", { name }, Object.entries(options).map(([key, words]) =>
  element("option", { value: key, selected: key === value }, words)));

const submit = async (guard, original) => {
  const { position, text, where, from } = open;
  const request = { ...cut(position, from), position, explanation: original, edit: text, strengths: open.strengths, where, tokens: open.tokens,
    words: scored(original, text) };
  await guard(async () => {
    const result = await steer(request);
    if (!result) return;
    strength = null;
    view.steered = { position, text, where, from, strengths: open?.strengths, tokens: open?.tokens, result };
    tell("steered");
  });
};

const form = (guard) => {
  const original = best(view.readings.get(open.position))?.text ?? "";
  const area = element("textarea", { rows: "6", "aria-label": "Edited explanation", dir: "auto", spellcheck: "true" });
  area.value = open.text;
  const diff = element("p", { class: "diff", dir: "auto", "aria-live": "polite" });
  const go = element("button", { type: "submit", class: "primary" }, "Steer");
  const strengths = element("input", { value: open.strengths.join("  "), "aria-label": "Strengths", inputmode: "decimal", size: "10" });
  const tokens = element("input", { type: "number", min: "1", max: "256", value: String(open.tokens) });
  const changed = () => {
    open.text = area.value;
    const same = open.text === original;
    replace(diff, same ? element("span", { class: "quiet" }, "Change some words: what they change in the reconstruction is added to the activation.") : diffLine(original, open.text));
    go.disabled = same || !open.text.trim();
  };
  area.addEventListener("input", changed);
  const where = select("where", PLACES, open.where), from = select("from", FROM, open.from);
  const node = element("form", { class: "steerform", onsubmit: (event) => {
    event.preventDefault();
    Object.assign(open, { strengths: strengthsOf(strengths.value), tokens: Number(tokens.value) || 24, where: where.value, from: from.value });
    if (!open.strengths.length) open.strengths = [1];
    submit(guard, original);
  } }, area, diff, element("p", { class: "options" }, element("label", {}, "add it ", where), element("label", {}, "continue ", from),
    element("label", {}, "strengths α ", strengths), element("label", {}, "tokens ", tokens), go));
  changed();
  return { node, area };
};

/** A continuation, with what it still has in common with the unsteered one kept quiet. */
const continuation = (text, plain) => {
  let same = 0;
  while (plain !== null && same < text.length && text[same] === plain[same]) same++;
  return element("p", { dir: "auto" }, element("span", { class: plain === null ? "" : "quiet" }, visible(text.slice(0, same))), visible(text.slice(same)) || (same ? "" : element("em", { class: "quiet" }, "(nothing)")));
};

const moved = (tokens) => (tokens ?? []).slice(0, 3).map((one) =>
  element("span", { class: "moved" }, element("code", {}, visible(one.text).replaceAll("\n", "⏎")), ` ${one.steered - one.unsteered >= 0 ? "+" : ""}${written(one.steered - one.unsteered, 1)}`));

const armBlock = (arm, plain, note = "") => element("div", { class: "block " + arm.name },
  element("div", {}, element("b", {}, MEANING[arm.name] ?? "unsteered"), note && element("br"), note, isNumber(arm.kl) && plain !== null ? [element("br"), `next token moved by ${written(arm.kl)} nats`] : null),
  element("div", {}, arm.continuations.map((text) => continuation(text, plain)), plain === null ? null : element("p", { class: "moves" }, "likelier next: ", moved(arm.rises))));

const follows = (result) => {
  const words = Object.keys(result.tokens ?? {});
  if (words.length !== 2) return { label: "KL of the next token from the unsteered model's, in nats", of: (arm) => arm.kl };
  const [towards, away] = words;
  return { label: `change of log p(${visible(towards)}) − log p(${visible(away)}), in nats`, of: (arm) => arm.changes[towards] - arm.changes[away] };
};

/** The result: the effect against α, then what each vector made the model write. */
export const resultNode = (result, shown = null, choose = null, edited = "") => {
  const strengths = [...new Set(result.arms.map((arm) => arm.strength))].sort((a, b) => a - b);
  const current = shown ?? strengths.at(-1), plain = result.unsteered.continuations[0] ?? "", { label, of } = follows(result);
  const curves = Object.keys(MEANING).map((name) => ({ name, label: MEANING[name],
    points: result.arms.filter((arm) => arm.name === name).map((arm) => [arm.strength, of(arm)]).sort((a, b) => a[0] - b[0]) }));
  const [old, other] = result.unrelated_word ?? [];
  return element("div", { class: "result" }, edited === result.edited ? null : element("p", { class: "diff", dir: "auto" }, diffLine(result.explanation, result.edited)),
    strengths.length > 1 ? chart(curves, label) : null,
    element("p", { class: "strengths" }, "strength α ", strengths.map((one) => choose
      ? element("button", { type: "button", "aria-pressed": String(one === current), onclick: () => choose(one) }, written(one, one % 1 ? 2 : 0))
      : element("span", { class: one === current ? "" : "quiet" }, one === current ? written(one, one % 1 ? 2 : 0) + " " : ""))),
    armBlock(result.unsteered, null), result.arms.filter((arm) => arm.strength === current).map((arm) =>
      armBlock(arm, plain, arm.name === "unrelated" && other ? `“${visible(old)}” → “${visible(other)}”` : "")),
    element("p", { class: "quiet note" }, "Only what the edit does beyond all three controls is an effect of what its words mean."));
};

const draw = (guard, focus = false) => {
  const { steered } = view;
  if (!open) return replace(byId("steering"));
  const { node, area } = form(guard), chip = chipAt(open.position);
  const fits = steered && steered.position === open.position;
  replace(byId("steering"), element("section", { class: "steering", "aria-label": "Steering" }, element("header", {},
    element("h2", {}, "Edit and steer ", element("span", { class: "token" }, visible(chip.text).replaceAll("\n", "⏎"))),
    element("button", { type: "button", "aria-label": "Close steering", onclick: closeSteering }, "×")), node,
  fits ? resultNode(steered.result, strength, (value) => { strength = value; draw(guard); }, open.text) : null));
  if (focus) {
    byId("steering").scrollIntoView({ block: "start" });
    area.focus({ preventScroll: true });
  }
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
  const position = kept?.position ?? view.focus, text = best(view.readings.get(position))?.text;
  if (!chipAt(position) || !text) return;
  open = { position, text: kept?.text ?? text, where: kept?.where ?? "position", from: kept?.from ?? "message", strengths: kept?.strengths ?? [0.25, 0.5, 1], tokens: kept?.tokens ?? 24 };
  draw(guard, focus);
};

export const startSteering = (guard) => on("steered", () => draw(guard));
