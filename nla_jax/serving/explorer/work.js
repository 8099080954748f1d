// What the page asks of the server: tokens, the model's reply, explanations. One request at a time.

import { post, Refusal, stream } from "./wire.js";
import { isNumber } from "./dom.js";
import { chipsOf, tell, view } from "./view.js";

let running = null; // AbortController of the request that runs

export const isBusy = () => running !== null;

export const stop = () => running?.abort();

/** Runs one request; a second one waits for nobody: it is refused here. `what` is shown while it runs. */
export const run = async (what, act) => {
  if (running) throw new Refusal(0, "something is still running: stop it first (Esc)");
  running = new AbortController();
  tell("busy", what);
  try {
    return await act(running.signal);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  } finally {
    running = null;
    tell("busy", null);
  }
};

/** The conversation or text as the server takes it. */
export const inputBody = (input = view.input, open = view.open) => {
  if (!input.messages) return { text: input.text };
  const last = input.messages.at(-1)?.role === "assistant";
  return {
    messages: input.messages,
    add_generation_prompt: !last,
    ...(open && last ? { continue_final_message: true } : {}),
  };
};

/** Asks for the tokens of what is read. */
export const tokenize = async () => {
  const input = view.input;
  const found = await run("Reading tokens", (signal) => post("tokenize", inputBody(), signal));
  if (!found || view.input !== input) return;
  view.tokens = found.tokens;
  view.chips = chipsOf(found.tokens);
  tell("tokens");
};

/** The text of tokens: those that share a character write it once. */
const spoken = (tokens) =>
  tokens
    .filter((one) => !(one.fragment_index > 0))
    .map((one) => one.token)
    .join("");

/** Has the model go on after `input`; `onText` gets what it has written so far. Returns it all; null of a stop. */
export const complete = (input, length, onText, open = false) =>
  run("The model writes", async (signal) => {
    const tokens = [];
    const { temperature } = view.settings;
    const body = { ...inputBody(input, open), completion_tokens: length, temperature };
    const onFrame = (frame) => {
      if (frame.type !== "token") return;
      tokens.push(frame.token);
      onText(spoken(tokens));
    };

    try {
      await stream("completion", body, onFrame, signal);
    } catch (error) {
      if (error.name !== "AbortError") throw error; // what was written before a stop is kept
      if (!tokens.length) return null;
    }
    return spoken(tokens);
  });

/** FVE of a sample: the server's own, or what its error makes of the baseline. */
const fveOf = (one, baseline) => {
  if (isNumber(one.fve)) return one.fve;
  const mse = one.mse_nrm ?? one.mse;
  return baseline && isNumber(mse) ? 1 - mse / baseline : null;
};

const sampleOf = (one, baseline) => ({
  text: one.text ?? one.description ?? null,
  reason: one.reason ?? null,
  answer: one.text ? null : (one.answer ?? null),
  cosine: one.cosine ?? one.cosine_similarity ?? null,
  fve: fveOf(one, baseline),
});

/** A partial answer without the tag that the verbalizer begins it with; of several samples the first. */
const written = (frame) =>
  String(frame.text)
    .replace(/^\s*<explanation>\s*/, "")
    .replace(/<\/explanation>[^]*$|<\/?[a-z]*$/, "");

/** Takes one frame of a reading into the view; returns the position it is about, if it is finished. */
const take = (frame) => {
  const reading = view.readings.get(frame.position);
  if (!reading) return null;
  if (frame.done === false) {
    if (frame.sample > 0) return null;
    view.readings.set(frame.position, { ...reading, partial: written(frame) });
    tell("reading", frame.position);
    return null;
  }
  const samples = (frame.samples ?? [frame]).map((one) => sampleOf(one, view.status.baseline));
  view.readings.set(frame.position, {
    state: "done",
    samples,
    norm: frame.norm ?? frame.l2_norm ?? null,
    agreement: frame.agreement ?? null,
    best_of: reading.best_of,
  });
  tell("reading", frame.position);
  return frame.position;
};

/** Has the chosen positions explained; calls `onStep(done, total)`. Earlier explanations return where it is stopped. */
export const explain = async (onStep) => {
  const positions = [...view.selected].sort((a, b) => a - b);
  const before = new Map(view.readings);
  const { best_of, samples, temperature } = view.settings;
  for (const position of positions) view.readings.set(position, { state: "pending", partial: "", best_of });
  positions.forEach((position) => tell("reading", position));
  const most = view.status.limits?.max_positions_per_request ?? 64;
  let done = 0;
  try {
    await run("Explaining", async (signal) => {
      for (let start = 0; start < positions.length; start += most) {
        const body = {
          ...inputBody(),
          positions: positions.slice(start, start + most),
          best_of,
          samples,
          temperature,
        };
        await stream(
          "read",
          body,
          (frame) => {
            if (take(frame) !== null) onStep(++done, positions.length);
          },
          signal,
        );
      }
    });
  } finally {
    for (const position of positions) {
      if (view.readings.get(position)?.state !== "pending") continue;
      if (before.has(position)) view.readings.set(position, before.get(position));
      else view.readings.delete(position);
      tell("reading", position);
    }
  }
};

/** Has the claims of a position's best explanation weighed; they are kept with it. */
export const weigh = async (position) => {
  const reading = view.readings.get(position);
  const [first, ...rest] = reading.samples;
  const body = { ...inputBody(), position, description: first.text };
  const found = await run("Weighing claims", (signal) => post("weigh", body, signal));
  // Another reading may have taken its place meanwhile.
  if (!found || view.readings.get(position) !== reading) return;
  view.readings.set(position, { ...reading, samples: [{ ...first, claims: found.claims }, ...rest] });
  tell("reading", position);
};

/** Has explained what the activation at `a` has and the one at `b` lacks; it is kept with the pair it is of. */
export const difference = async (a, b) => {
  const { input, settings } = view;
  const body = { ...inputBody(), positions: [a, b], temperature: settings.temperature };
  const found = await run("Explaining a difference", (signal) => post("compare", body, signal));
  if (!found || view.input !== input) return;
  view.differences.set(`${a} ${b}`, { text: found.description, cosine: found.cosine_similarity, norm: found.diff_norm });
  tell("focus");
};

/** Has the model continue with and without an edited explanation added to the activation. */
export const steer = (request) =>
  run("Steering", (signal) => post("steer", { ...inputBody(), ...request }, signal));
