// The view as one HTML file that can be sent around: styles inside, no script, no network. Texts enter as text nodes
// and the browser writes the markup, so that a hostile text stays a text.

import { element, glyphs, visible, written } from "./dom.js";
import { positionCard } from "./reading.js";
import { resultNode } from "./steered.js";
import { best, isTemplate, positionOf, shadeOf, view } from "./view.js";

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const chipNode = (chip) => {
  const reading = view.readings.get(positionOf(chip));
  const fve = best(reading)?.fve;
  const done = reading?.state === "done";
  const text = glyphs(chip.text) + (visible(chip.text).endsWith("\n") ? "\n" : "");
  const template = isTemplate(chip.token) ? " template" : "";
  const classes = `chip${template} ${shadeOf(fve)}`;
  return done
    ? element("a", { class: classes, href: `#p${positionOf(chip)}`, title: "FVE " + written(fve) }, text)
    : element("span", { class: classes }, text);
};

const conversation = () => {
  const groups = [];
  for (const chip of view.chips.filter((one) => view.settings.template || !isTemplate(one.token))) {
    const index = chip.token.message_index ?? null;
    if (groups.length && groups.at(-1).index === index) groups.at(-1).chips.push(chip);
    else groups.push({ index, chips: [chip] });
  }
  return groups.map(({ chips }) =>
    element(
      "div",
      { class: "message" },
      element("div", { class: "role" }, chips[0].token.role ?? ""),
      element("div", { class: "words" }, chips.map(chipNode)),
    ),
  );
};

const copyOf = (id) => document.getElementById(id).cloneNode(true);

const body = () => {
  const done = [...view.readings]
    .filter(([, reading]) => reading.state === "done")
    .map(([position]) => position)
    .sort((a, b) => a - b);
  const head = copyOf("subject");
  head.append(element("span", {}, "saved ", element("b", {}, new Date().toISOString().slice(0, 10))));
  return [
    element(
      "header",
      { class: "top" },
      element(
        "div",
        {},
        element("p", { class: "overline" }, "Natural language autoencoder · a saved reading"),
        copyOf("model"),
        head,
      ),
    ),
    document.querySelector(".caution").cloneNode(true),
    element(
      "main",
      { class: "saved" },
      element("section", { id: "conversation" }, element("div", { id: "tokens" }, conversation())),
      element(
        "section",
        { id: "detail" },
        element("div", { class: "tools" }, copyOf("legend")),
        done.map((position) => {
          const card = positionCard(position);
          card.id = `p${position}`;
          return card;
        }),
        view.steered
          ? element(
              "section",
              { class: "steering" },
              element("h2", {}, `Steered at position ${view.steered.position}`),
              resultNode(view.steered.result),
            )
          : null,
      ),
    ),
    element("footer", {}, "Made by nla_jax. One file, no network: it may be kept and sent as it is."),
  ];
};

/** The file's markup. */
export const pageOf = async () => {
  const styles = await (await fetch(document.querySelector("link[rel=stylesheet]").href)).text();
  const page = document.implementation.createHTMLDocument(document.title);
  const meta = (attributes) => page.head.prepend(page.importNode(element("meta", attributes)));
  meta({ name: "color-scheme", content: "light dark" });
  meta({ name: "viewport", content: "width=device-width, initial-scale=1" });
  meta({ "http-equiv": "Content-Security-Policy", content: POLICY });
  meta({ charset: "utf-8" });
  page.documentElement.lang = "en";
  page.head.append(page.createComment("styles"));
  page.body.append(...body().map((node) => page.importNode(node, true)));
  // What a reader can only do with the server is no part of a kept page.
  page.querySelectorAll("button").forEach((node) => node.remove());
  // Put in as text: a style element would fall under this page's own policy. No foreign text has this markup.
  return (
    "<!doctype html>\n" +
    page.documentElement.outerHTML.replace("<!--styles-->", () => `<style>${styles}</style>`)
  );
};

export const savePage = async () => {
  const address = URL.createObjectURL(new Blob([await pageOf()], { type: "text/html" }));
  const name = (document.getElementById("model").textContent || "nla").replace(/[^\w.-]+/g, "_");
  element("a", { href: address, download: `${name}_reading.html` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
};
