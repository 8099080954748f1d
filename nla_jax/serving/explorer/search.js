// Search in explanations, with the previous and the next match.

import { byId, visible } from "./dom.js";
import { goTo } from "./select.js";
import { setFound } from "./tokens.js";
import { chipAt, on, tell, view } from "./view.js";

/** Positions of which an explanation has the searched words, in order. */
export const matches = () => {
  const query = view.query.trim().toLowerCase();
  if (!query) return [];
  return [...view.readings]
    .filter(([, reading]) =>
      reading.samples?.some((one) =>
        visible(one.text ?? "")
          .toLowerCase()
          .includes(query),
      ),
    )
    .map(([position]) => position)
    .sort((a, b) => a - b);
};

const show = () => {
  const found = matches();
  const place = found.indexOf(view.focus);
  setFound(found);
  byId("matches").textContent = view.query.trim()
    ? found.length
      ? `${place + 1 || "–"} of ${found.length}`
      : "none"
    : "";
  document.querySelector(".search").hidden = !view.readings.size;
  byId("previous").disabled = byId("next").disabled = !found.length;
};

/** Goes to the next match after the position in focus, round the end; backwards with −1. */
export const step = (direction) => {
  const found = matches();
  const from = view.focus ?? (direction > 0 ? -1 : Infinity);
  const next =
    direction > 0
      ? (found.find((one) => one > from) ?? found[0])
      : (found.findLast((one) => one < from) ?? found.at(-1));
  if (next !== undefined) goTo(chipAt(next), false);
};

export const setQuery = (query) => {
  view.query = query;
  if (byId("query").value !== query) byId("query").value = query;
  show();
  tell("query");
};

export const startSearch = () => {
  byId("query").addEventListener("input", () => setQuery(byId("query").value));
  byId("query").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    step(event.shiftKey ? -1 : 1);
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  on("focus reading input", show);
  show();
};
