// What the page shows, in one object, and the news of its changes. Everything else draws from here.

export const view = {
  status: null, // of the server: model, layer, baseline, limits
  input: null, // {messages} or {text}: what is read
  open: false, // whether the last message is left open, so that the model continues it
  tokens: [], // as the server names them
  chips: [], // groups of tokens that share a character, in order
  selected: new Set(), // positions to explain next
  focus: null, // position whose explanation is shown
  pinned: null, // position kept beside it
  readings: new Map(), // by position: {state, partial, samples, norm, agreement, error}
  differences: new Map(), // by "a b": {text, cosine, norm}: what a has and b lacks
  steered: null, // {position, request, result}: the last steering
  query: "",
  settings: { template: false, best_of: 4, samples: 1, temperature: 1 },
};

const heard = new EventTarget();

/** Calls `act` after each change named: input, tokens, selection, focus, reading, query, steered, busy, any. */
export const on = (names, act) =>
  names.split(" ").forEach((name) => heard.addEventListener(name, (event) => act(event.detail)));

export const tell = (name, detail) => {
  heard.dispatchEvent(new CustomEvent(name, { detail }));
  if (name !== "busy") heard.dispatchEvent(new CustomEvent("any"));
};

/** Chips of tokens: those that share a character stand together. */
export const chipsOf = (tokens) => {
  const chips = [];
  for (const token of tokens) {
    const joined = (token.fragment_index ?? 0) > 0 && chips.length;
    if (joined) chips.at(-1).positions.push(token.position);
    else chips.push({ at: chips.length, text: token.token, positions: [token.position], token });
  }
  return chips;
};

export const chipAt = (position) => view.chips.find((chip) => chip.positions.includes(position)) ?? null;

/** The position that stands for a chip: of a character of several tokens the last, which has read all of it. */
export const positionOf = (chip) => chip.positions.at(-1);

export const isTemplate = (token) => Boolean(token.section) && token.section !== "content";

export const shownChips = () => view.chips.filter((chip) => view.settings.template || !isTemplate(chip.token));

export const best = (reading) => reading?.samples?.[0] ?? null;

/** Classes of a colour: a step of a tenth, and whether it lies below the mean. */
export const SHADES = ["read", "below", ...Array.from({ length: 11 }, (_, i) => `f${i}`)];

/** The classes of an FVE; none where there is no FVE. */
export const shadeOf = (fve) => {
  if (typeof fve !== "number") return "";
  return `read f${Math.round(Math.min(1, Math.abs(fve)) * 10)}${fve < 0 ? " below" : ""}`;
};

/** Confidence of an explanation by its relative error, 1 − FVE: the bounds that the public NLA page uses. */
export const confidence = (fve) => {
  if (typeof fve !== "number") return null;
  if (1 - fve < 0.3) return "High";
  return 1 - fve < 0.5 ? "Medium" : "Low";
};

export const setInput = (input, open = false) => {
  Object.assign(view, {
    input,
    open,
    tokens: [],
    chips: [],
    selected: new Set(),
    focus: null,
    pinned: null,
    steered: null,
  });
  view.readings = new Map();
  view.differences = new Map();
  tell("input");
};

export const setFocus = (position) => {
  view.focus = position;
  tell("focus");
};
