// What steering did: the effect against strength, and what each vector made the model write.

import { chart } from "./chart.js";
import { element, isNumber, visible, written } from "./dom.js";
import { difference } from "./words.js";

const MEANING = {
  edit: "steered by the edit",
  random: "a random vector of equal norm",
  unedited: "the unedited reconstruction",
  unrelated: "an edit of an unrelated word",
};

/** How an explanation was edited, with what is gone and what is new. */
export const diffLine = (before, after) =>
  difference(before, after).map((run) =>
    run.kind === "same"
      ? visible(run.text)
      : element(run.kind === "new" ? "ins" : "del", {}, visible(run.text)),
  );

/** A continuation, with what it still has in common with the unsteered one kept quiet. */
const continuation = (text, plain) => {
  let same = 0;
  while (plain !== null && same < text.length && text[same] === plain[same]) same++;
  return element(
    "p",
    { dir: "auto" },
    element("span", { class: plain === null ? "" : "quiet" }, visible(text.slice(0, same))),
    visible(text.slice(same)) || (same ? "" : element("em", { class: "quiet" }, "(nothing)")),
  );
};

const moved = (tokens) =>
  (tokens ?? [])
    .slice(0, 3)
    .map((one) =>
      element(
        "span",
        { class: "moved" },
        element("code", {}, visible(one.text).replaceAll("\n", "⏎")),
        ` ${one.steered - one.unsteered >= 0 ? "+" : ""}${written(one.steered - one.unsteered, 1)}`,
      ),
    );

const armBlock = (arm, plain, note = "") =>
  element(
    "div",
    { class: "block " + arm.name },
    element(
      "div",
      {},
      element("b", {}, MEANING[arm.name] ?? "unsteered"),
      note && element("br"),
      note,
      isNumber(arm.kl) && plain !== null
        ? [element("br"), `next token moved by ${written(arm.kl)} nats`]
        : null,
    ),
    element(
      "div",
      {},
      arm.continuations.map((text) => continuation(text, plain)),
      plain === null ? null : element("p", { class: "moves" }, "likelier next: ", moved(arm.rises)),
    ),
  );

const follows = (result) => {
  const words = Object.keys(result.tokens ?? {});
  if (words.length !== 2)
    return { label: "KL of the next token from the unsteered model's, in nats", of: (arm) => arm.kl };
  const [towards, away] = words;
  return {
    label: `change of log p(${visible(towards)}) − log p(${visible(away)}), in nats`,
    of: (arm) => arm.changes[towards] - arm.changes[away],
  };
};

/** The result: the effect against α, then what each vector made the model write. */
export const resultNode = (result, shown = null, choose = null, edited = "") => {
  const strengths = [...new Set(result.arms.map((arm) => arm.strength))].sort((a, b) => a - b);
  const current = shown ?? strengths.at(-1);
  const plain = result.unsteered.continuations[0] ?? "";
  const { label, of } = follows(result);
  const curves = Object.keys(MEANING).map((name) => ({
    name,
    label: MEANING[name],
    points: result.arms
      .filter((arm) => arm.name === name)
      .map((arm) => [arm.strength, of(arm)])
      .sort((a, b) => a[0] - b[0]),
  }));
  const { old, new: other } = result.unrelated ?? {};
  return element(
    "div",
    { class: "result" },
    edited === result.edited
      ? null
      : element("p", { class: "diff", dir: "auto" }, diffLine(result.explanation, result.edited)),
    strengths.length > 1 ? chart(curves, label) : null,
    element(
      "p",
      { class: "strengths" },
      "strength α ",
      strengths.map((one) =>
        choose
          ? element(
              "button",
              { type: "button", "aria-pressed": String(one === current), onclick: () => choose(one) },
              written(one, one % 1 ? 2 : 0),
            )
          : element(
              "span",
              { class: one === current ? "" : "quiet" },
              one === current ? written(one, one % 1 ? 2 : 0) + " " : "",
            ),
      ),
    ),
    armBlock(result.unsteered, null),
    result.arms
      .filter((arm) => arm.strength === current)
      .map((arm) =>
        armBlock(
          arm,
          plain,
          arm.name === "unrelated" && other ? `“${visible(old)}” → “${visible(other)}”` : "",
        ),
      ),
    element(
      "p",
      { class: "quiet note" },
      "Only what the edit does beyond all three controls is an effect of what its words mean.",
    ),
  );
};
