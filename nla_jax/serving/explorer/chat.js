// Talking with the target, pasting a conversation, and editing a message of it.

import { byId, element, replace, visible } from "./dom.js";
import { inputOf } from "./pasted.js";
import { Refusal } from "./wire.js";
import { complete, isBusy, tokenize } from "./work.js";
import { drawTokens } from "./tokens.js";
import { isTemplate, setFocus, setInput, tell, view } from "./view.js";

let guard = null; // runs what the server may refuse

const LENGTH = 128; // tokens of a reply, where the server allows as many

const EXAMPLE = {
  messages: [{ role: "user", content: "What is the capital of France, and which river runs through it?" }],
};

const length = () => Math.min(LENGTH, view.status.limits?.max_completion_tokens ?? LENGTH);

/** Shows a conversation and its tokens. Up to where it differs from the one before, what was explained stays. */
export const read = async (input, open = false) => {
  const { tokens, readings, focus } = view;
  setInput(input, open);
  await tokenize();
  // Every token attends to those before it alone, so that a longer conversation leaves their activations as they were.
  const differs = tokens.findIndex((token, i) => token.token_id !== view.tokens[i]?.token_id);
  const same = differs < 0 ? tokens.length : differs;
  view.readings = new Map([...readings].filter(([position]) => position < same));
  tell("selection");
  setFocus(focus !== null && focus < same ? focus : null);
};

/** A reply as it is written, below the conversation. */
const preview = () => {
  const words = element("div", { class: "words", dir: "auto" }, "…");
  byId("tokens").append(
    element(
      "div",
      { class: "message writing" },
      element("div", { class: "role" }, element("span", {}, view.input.messages ? "assistant" : "text")),
      words,
    ),
  );
  return (text) => {
    words.textContent = visible(text);
    words.scrollIntoView({ block: "nearest" });
  };
};

/** Has the model answer; what it has said joins the conversation. */
const answer = async (open = false) => {
  const { input } = view;
  const text = await complete(input, length(), preview(), open);
  if (view.input !== input) return;
  if (!text) {
    drawTokens(editMessage);
    if (text === null) return;
    throw new Refusal(0, "the model adds nothing: it takes this for the end");
  }

  if (!input.messages) return read({ text: input.text + text });
  const last = input.messages.at(-1);
  const before = open ? input.messages.slice(0, -1) : input.messages;
  const said = { role: "assistant", content: text };
  return read({ messages: [...before, open ? { ...last, content: last.content + text } : said] });
};

const say = async (words) => {
  const input =
    view.input?.messages || !view.input
      ? { messages: [...(view.input?.messages ?? []), { role: "user", content: words }] }
      : { text: view.input.text + words };
  await read(input);
  if (canAnswer()) await answer();
};

/** Whether this server lets the whole target write; one that holds its first blocks alone cannot. */
const canAnswer = () => view.status.completion_available !== false;

/** Whether the send button, without words, lets the model go on. */
const canGoOn = () =>
  canAnswer() && view.input && (view.input.text !== undefined || view.input.messages.length > 0);

export const drawComposer = () => {
  const words = byId("words").value;
  const last = view.input?.messages?.at(-1)?.role;
  byId("send").textContent =
    words.trim() || !canGoOn()
      ? "Send"
      : last === "assistant" || view.input.text !== undefined
        ? "Go on"
        : "Answer";
  byId("send").disabled = isBusy() || (!words.trim() && !canGoOn());
  byId("words").placeholder =
    view.input?.text !== undefined ? "Add to the text" : canAnswer() ? "Write to the model" : "Add a message";
  byId("welcome").hidden = byId("guide").hidden = Boolean(view.input);
  byId("readbar").hidden = !view.tokens.length;
};

/** Edits a message in place. Saved, the conversation ends with it, and an answer is left open: it is then continued. */
export const editMessage = (index, group) => {
  const message = view.input.messages[index];
  const answers = message.role === "assistant";
  const area = element("textarea", {
    rows: "4",
    "aria-label": `Edit the message of ${message.role}`,
    dir: "auto",
  });
  area.value = message.content;
  const finish = (keepRest) =>
    guard(() =>
      read(
        {
          messages: [
            ...view.input.messages.slice(0, index),
            { ...message, content: area.value },
            ...(keepRest ? view.input.messages.slice(index + 1) : []),
          ],
        },
        answers && !keepRest,
      ),
    );
  const last = index === view.input.messages.length - 1;
  replace(
    group.querySelector(".words"),
    area,
    element(
      "p",
      { class: "ends" },
      element("button", { type: "button", onclick: () => drawTokens(editMessage) }, "Cancel"),
      last ? null : element("button", { type: "button", onclick: () => finish(true) }, "Save"),
      element(
        "button",
        { type: "button", class: "primary", onclick: () => finish(false) },
        last ? "Save" : "Save and end here",
      ),
    ),
  );
  area.focus();
};

const rolesOf = (messages) => [...new Set(messages.map((one) => visible(one.role)))].join(", ");

const describePaste = () => {
  const text = byId("pasted").value;
  const found = inputOf(text);
  byId("paste_use").disabled = !text.trim();
  byId("paste_kind").textContent = !text.trim()
    ? ""
    : found.messages
      ? `a conversation of ${found.messages.length} messages: ${rolesOf(found.messages)}`
      : /^\s*[[{]/.test(text)
        ? "plain text (no conversation was found in this JSON)"
        : "plain text";
};

export const startChat = (guarded) => {
  guard = guarded;
  const send = (event) => {
    event?.preventDefault();
    const words = byId("words").value;
    if (byId("send").disabled) return;
    byId("words").value = "";
    guard(() => (words.trim() ? say(words) : answer(view.input.messages?.at(-1)?.role === "assistant")));
  };
  byId("composer").addEventListener("submit", send);
  byId("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  });
  byId("words").addEventListener("input", drawComposer);
  byId("example").addEventListener("click", () =>
    guard(async () => {
      await read(EXAMPLE);
      if (canAnswer()) await answer();
    }),
  );
  byId("fresh").addEventListener("click", () => {
    setInput(null);
    byId("words").focus();
  });
  byId("paste").addEventListener("click", () => {
    describePaste();
    byId("paste_dialog").showModal();
  });
  byId("pasted").addEventListener("input", describePaste);
  byId("paste_cancel").addEventListener("click", () => byId("paste_dialog").close());
  byId("paste_use").addEventListener("click", () => {
    byId("paste_dialog").close();
    guard(() => read(inputOf(byId("pasted").value)));
  });
};

/** Whether there is anything to choose while the template's tokens are hidden. */
export const onlyTemplate = () => view.tokens.length > 0 && view.tokens.every(isTemplate);
