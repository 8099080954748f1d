// The view as a link. It holds the conversation and the explanations themselves, so that it shows what was seen: a
// sampled explanation is not drawn the same way twice.

import { view } from "./view.js";

const PREFIX = "#v1.";
// Longer addresses are cut by mail programs and chats, and browsers end somewhere beyond.
const LONGEST = 60_000;

const through = async (bytes, transform) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());

const pack = async (object) => {
  const bytes = await through(
    new TextEncoder().encode(JSON.stringify(object)),
    new CompressionStream("deflate-raw"),
  );
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
};

const unpack = async (text) => {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(await through(bytes, new DecompressionStream("deflate-raw"))));
};

/** What an explanation belongs to: of another pair it would be a claim about a model that never saw the text. */
export const pairName = (status) =>
  [status?.source_model, status?.verbalizer_model, status?.extraction_layer].join(" · ");

const done = () => [...view.readings].filter(([, reading]) => reading.state === "done");

const contents = (whole) => ({
  pair: pairName(view.status),
  input: view.input,
  open: view.open,
  selected: [...view.selected],
  focus: view.focus,
  pinned: view.pinned,
  query: view.query,
  settings: view.settings,
  readings: whole ? done() : [],
  steered: whole ? view.steered : null,
});

/** The view as a hash, and whether the explanations are in it. */
export const hashOf = async () => {
  if (!view.input) return { hash: "", whole: true };
  const hash = PREFIX + (await pack(contents(true)));
  if (hash.length <= LONGEST) return { hash, whole: true };
  return { hash: PREFIX + (await pack(contents(false))), whole: false };
};

/** What a hash holds, or null of one that is no view. Whoever made the link wrote it: kinds are checked here. */
export const viewOf = async (hash) => {
  if (!hash.startsWith(PREFIX)) return null;
  const found = await unpack(hash.slice(PREFIX.length));
  const { input } = found;
  const isMessage = (one) => typeof one?.role === "string";
  if (typeof input?.text !== "string" && !(Array.isArray(input?.messages) && input.messages.every(isMessage)))
    return null;
  const readings = (Array.isArray(found.readings) ? found.readings : []).filter(
    ([position, reading]) =>
      Number.isInteger(position) &&
      Array.isArray(reading?.samples) &&
      reading.samples.length &&
      reading.samples.every((one) => one && (one.text === null || typeof one.text === "string")),
  );
  const steered =
    Array.isArray(found.steered?.result?.arms) && Array.isArray(found.steered.result.unsteered?.continuations)
      ? found.steered
      : null;
  return {
    ...found,
    steered,
    input: input.messages ? { messages: input.messages } : { text: input.text },
    readings,
  };
};
