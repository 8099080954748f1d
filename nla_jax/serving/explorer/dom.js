// Elements and the way numbers and foreign texts are written. Texts come from documents and models and may be hostile:
// they enter the page as text nodes only, never as markup.

export const byId = (id) => document.getElementById(id);

/** Makes an element: `element("p", {class: "quiet", onclick: f}, "words", node, null)`. */
export const element = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const written = (value, digits = 2) => (isNumber(value) ? value.toFixed(digits).replace("-", "−") : "—");

// Characters that turn or hide what stands around them. Shown by name, an override cannot reorder the page.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

const named = (character) => "⟨U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩";

/** A text with its invisible controls written out; ends of lines stay. A joiner inside an emoji is no control. */
export const visible = (text) =>
  String(text ?? "")
    .replaceAll("\r\n", "\n")
    .replace(HIDDEN, (character, at, whole) => {
      const joins =
        character === "\u200d" &&
        at > 0 &&
        /\p{M}|\p{Extended_Pictographic}/u.test(whole.slice(Math.max(0, at - 2), at));
      return joins ? character : named(character);
    });

/** A token as a chip shows it: ends of lines and tabs as glyphs. */
export const glyphs = (text) => visible(text).replaceAll("\n", "⏎").replaceAll("\t", "⇥");

export const plural = (count, one, many = one + "s") => `${count} ${count === 1 ? one : many}`;

export const replace = (node, ...children) => {
  node.replaceChildren(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
  );
};

/** Draws a part anew, and leaves the keyboard at the button where it was. */
export const redraw = (node, ...children) => {
  const place = [...node.querySelectorAll("button")].indexOf(document.activeElement);
  replace(node, ...children);
  if (place >= 0) [...node.querySelectorAll("button")].at(place)?.focus({ preventScroll: true });
};
