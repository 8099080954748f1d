// The explorer: starts its parts, and holds what belongs to the whole page: the keyboard, the link, what went wrong.

import { drawComposer, editMessage, onlyTemplate, startChat } from "./chat.js";
import { drawLegend, pin, startDetail } from "./detail.js";
import { byId, element, replace, visible, written } from "./dom.js";
import { hashOf, pairName, viewOf } from "./link.js";
import { setQuery, startSearch } from "./search.js";
import { goTo, letGo, nextRead, startSelection } from "./select.js";
import { savePage } from "./snapshot.js";
import { closeSteering, openSteering, startSteering } from "./steering.js";
import { drawTokens, showTemplate } from "./tokens.js";
import { best, chipAt, on, setFocus, setInput, shownChips, tell, view } from "./view.js";
import { keepSecret, Refusal, status } from "./wire.js";
import { difference, explain, isBusy, stop, tokenize, weigh } from "./work.js";

const SETTINGS = ["best_of", "samples", "temperature"];
let steps = "";

const notice = (text, kind = "", ...more) => {
  byId("notice").className = kind;
  byId("notice").hidden = !text;
  replace(byId("notice"), element("span", {}, visible(text)), ...more);
};

const askSecret = () =>
  new Promise((resolve) => {
    const dialog = byId("secret_dialog");
    dialog.addEventListener(
      "close",
      () => {
        keepSecret(byId("secret").value);
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });

/** Runs what may be refused, and says so; what was refused for being too busy or for the secret can be tried again. */
const guard = async (act) => {
  try {
    if (!isBusy()) notice("");
    return await act();
  } catch (error) {
    if (!(error instanceof Refusal)) console.error(error);
    if (error.status === 401 || (error.status === 403 && error.message.includes("X-SECRET-KEY"))) {
      await askSecret();
      return guard(act);
    }
    const words = error.status === 429 ? "The server is busy with other requests." : error.message;
    notice(
      words,
      "bad",
      element("button", { type: "button", onclick: () => guard(act) }, "Try again"),
      element("button", { type: "button", "aria-label": "Dismiss", onclick: () => notice("") }, "×"),
    );
  } finally {
    if (view.status) drawComposer();
  }
};

const explainChosen = () => {
  if (!view.selected.size && view.focus !== null) {
    view.selected.add(view.focus);
    tell("selection");
  }
  if (!view.selected.size) return;
  const first = Math.min(...view.selected);
  if (!view.selected.has(view.focus)) setFocus(first);
  steps = ` 0 of ${view.selected.size}`;
  return guard(() =>
    explain((done, total) => {
      steps = ` ${done} of ${total}`;
      busy("Explaining");
    }),
  );
};

const busy = (what) => {
  document.body.toggleAttribute("data-busy", Boolean(what));
  drawComposer();
  if (what)
    notice(
      `${what}${what === "Explaining" ? steps : ""}…`,
      "busy",
      element("button", { type: "button", onclick: stop }, "Stop"),
    );
  else if (byId("notice").className === "busy") notice("");
};

let written_hash = null,
  timer = null;

const keepLink = () => {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const { hash } = await hashOf();
    written_hash = hash;
    history.replaceState(null, "", hash || location.pathname + location.search);
  }, 250);
};

const copyLink = async () => {
  clearTimeout(timer);
  const { hash, whole } = await hashOf();
  written_hash = hash;
  history.replaceState(null, "", hash || location.pathname + location.search);
  const said = whole
    ? "Link copied: it reopens this view, explanations and all."
    : "Link copied. The explanations are too many for a link and are not in it: “Save page” keeps them.";
  try {
    await navigator.clipboard.writeText(location.href);
    notice(said);
  } catch {
    const field = element("input", { readonly: true, value: location.href, "aria-label": "Link" });
    notice("Copy this link:", "", field);
    field.select();
  }
};

/** Opens the view that the address names. */
const openLink = async () => {
  if (location.hash === (written_hash ?? "")) return;
  const found = await viewOf(location.hash).catch(() => null);
  if (!found)
    return location.hash.length > 1
      ? notice("This link holds no view of the explorer: it was cut short or made by another version.", "bad")
      : null;
  const same = found.pair === pairName(view.status);
  for (const name of SETTINGS)
    if (Number.isFinite(found.settings?.[name])) view.settings[name] = found.settings[name];
  view.settings.template = Boolean(found.settings?.template);
  setInput(found.input, Boolean(found.open));
  showSettings();
  await tokenize();
  const there = new Set(view.tokens.map((token) => token.position));
  view.selected = new Set((found.selected ?? []).filter((one) => there.has(one)));
  if (same) view.readings = new Map(found.readings.filter(([position]) => there.has(position)));
  view.steered = same ? (found.steered ?? null) : null;
  view.pinned = there.has(found.pinned) ? found.pinned : null;
  tell("selection");
  setFocus(there.has(found.focus) ? found.focus : null);
  setQuery(String(found.query ?? ""));
  if (view.steered) openSteering(guard);
  if (!same)
    notice(`This link was made with another pair (${found.pair}). Its explanations are left out.`, "bad");
};

const showSettings = () => {
  for (const name of SETTINGS) byId(name).value = view.settings[name];
  byId("template").checked = view.settings.template;
};

const startSettings = () => {
  const limits = view.status.limits ?? {};
  if (limits.max_samples) byId("samples").max = limits.max_samples;
  if (limits.max_best_of) byId("best_of").max = limits.max_best_of;
  if (Number.isFinite(view.status.temperature)) view.settings.temperature = view.status.temperature;
  for (const name of SETTINGS)
    byId(name).addEventListener("change", () => {
      const field = byId(name);
      view.settings[name] = Math.min(
        Number(field.max),
        Math.max(Number(field.min), Number(field.value) || Number(field.min)),
      );
      field.value = view.settings[name];
      tell("settings");
    });
  byId("template").addEventListener("change", () => showTemplate(byId("template").checked));
  showSettings();
};

const KEYS = {
  e: explainChosen,
  Enter: explainChosen,
  "[": () => nextRead(-1),
  "]": () => nextRead(1),
  c: () => view.focus !== null && pin(view.focus),
  s: () => best(view.readings.get(view.focus)) && openSteering(guard, true),
  "/": () => byId("query").focus(),
  "?": () => byId("keys_dialog").showModal(),
  t: () => goTo(chipAt(view.focus) ?? shownChips()[0]),
  Escape: () => (isBusy() ? stop() : view.pinned !== null ? pin(null) : letGo()),
};

const keyDown = (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (event.key === "Escape" && typing) return typing.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]"))
    return;
  if (
    (event.key === "Enter" && !event.target.closest(".chip, body > main > section")) ||
    (event.target.closest("button, summary, a") && event.key === "Enter")
  )
    return;
  if (!KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
};

const drawStatus = () => {
  const { status: found } = view;
  const short = (name) =>
    String(name ?? "")
      .replace(/\/+$/, "")
      .split(/[/:]/)
      .at(-1);
  byId("model").textContent = visible(short(found.source_model)) || "NLA";
  document.title = `${visible(short(found.source_model))} · NLA explorer`;
  replace(
    byId("subject"),
    [
      ["block", found.extraction_layer],
      ["verbalizer", short(found.verbalizer_model)],
      ["baseline variance", typeof found.baseline === "number" ? written(found.baseline, 3) : "none"],
    ]
      .filter(([, value]) => value !== undefined && value !== "")
      .map(([name, value]) => element("span", {}, name + " ", element("b", {}, visible(value)))),
  );
  drawLegend();
};

/** Goes to a token from the list of all, which may be far below its explanation. */
const showFromList = (chip) => {
  goTo(chip, false);
  // Drawn in the next frame, and so in sight in the one after.
  requestAnimationFrame(() => requestAnimationFrame(() => byId("focus").scrollIntoView({ block: "nearest" })));
};

const start = () => {
  const redraw = () => drawTokens(editMessage);
  startSelection();
  startSearch();
  startSettings();
  startChat(guard);
  startSteering();
  const deeds = {
    onSteer: () => openSteering(guard, true),
    onCompare: (a, b) => guard(() => difference(a, b)),
    onWeigh: (position) => guard(() => weigh(position)),
  };
  startDetail(deeds, showFromList);
  on("input", () => {
    closeSteering();
    redraw();
    drawComposer();
  });
  on("tokens", () => {
    if (onlyTemplate()) view.settings.template = true;
    showSettings();
    redraw();
    drawComposer();
  });
  on("busy", busy);
  on("any", keepLink);
  byId("explain").addEventListener("click", explainChosen);
  byId("share").addEventListener("click", copyLink);
  byId("save").addEventListener("click", savePage);
  byId("keys").addEventListener("click", () => byId("keys_dialog").showModal());
  document.addEventListener("keydown", keyDown);
  window.addEventListener("hashchange", () => guard(openLink));
  drawStatus();
  drawComposer();
};

guard(async () => {
  view.status = await status();
  start();
  // Its own try: a link that is refused is tried again without starting all parts again.
  await guard(openLink);
});
