// What an explanation claims, and how far each claim can be trusted.

import { element, isNumber, visible } from "./dom.js";
import { shadeOf } from "./view.js";

const TITLE = "How often such a claim was true on held-out documents, judged by what the pair itself gives away";

/** Claims as a list, the likeliest first; nothing of an explanation that nobody has weighed. */
export const claimList = (claims) => {
  // A link's claims are as hostile as its texts.
  if (!Array.isArray(claims)) return null;
  if (!claims.length) return element("p", { class: "quiet" }, "These words make no claim that can be weighed.");
  const ordered = [...claims].sort((a, b) => (b.confidence ?? -1) - (a.confidence ?? -1));
  return element(
    "ul",
    { class: "claims", "aria-label": "Claims" },
    ordered.map((one) =>
      element(
        "li",
        {},
        element(
          "span",
          { class: "meter " + shadeOf(one.confidence), title: TITLE },
          element("span", { class: "label" }, isNumber(one.confidence) ? `${Math.round(one.confidence * 100)} %` : "—"),
          element("span", { class: "track" }, element("span", { class: "fill" })),
        ),
        element("span", { class: "quiet" }, visible(one.field)),
        element("span", { dir: "auto" }, visible(one.text)),
      ),
    ),
  );
};
