// Browses the examples. Every text comes from documents and models, so it enters the page as textContent only.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;

  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  const asked = new URLSearchParams(location.search).get("theme");
  if (asked === "dark" || asked === "light") root.dataset.theme = asked;

  const examples = JSON.parse(byId("data").textContent);
  if (!examples.length) return;

  const PER_PAGE = 10;
  const HEADLINE = "round_trip";
  const texts = JSON.parse(byId("cards").dataset.texts);  // [key, heading] of what an example may show, in order
  let page = 0;
  let shown = [];

  const element = (name, className, ...children) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const written = (value) => value.toFixed(2).replace("-", "−");

  const chip = (fve, title) => {
    if (!isNumber(fve)) return element("span", "chip none", "no FVE");
    const node = element("span", fve >= 0 ? "chip above" : "chip below", "FVE " + written(fve));
    node.style.setProperty("--strength", Math.min(1, Math.abs(fve)));
    node.title = title;
    return node;
  };

  const block = (name, text, fve, className) => {
    if (text === null || text === undefined) return null;
    const paragraphs = text.trim() === "" ? [element("p", "", element("em", "", "(empty)"))]
      : text.trim().split(/\n\s*\n/).map((paragraph) => element("p", "", paragraph));
    return element("div", "block " + className,
      element("div", "", name, document.createElement("br"), chip(fve, name + ": 1 − error / baseline for this activation")),
      element("div", "words", ...paragraphs));
  };

  const card = (example) => {
    const where = [example.document, isNumber(example.position) ? "position " + example.position : null,
      isNumber(example.cosine) ? "cosine " + written(example.cosine) : null].filter((part) => part).join("  ·  ");
    const token = String(example.token ?? "").replaceAll("\n", "⏎");
    return element("article", "card",
      element("header", "", element("span", "", where)),
      element("p", "context", example.context_before ?? "", element("mark", "", token),
        element("span", "after", example.context_after ?? "")),
      ...texts.map(([key, name]) => block(name, example.texts?.[key], example.fve?.[key],
        key === HEADLINE ? "first" : "second")));
  };

  // A fixed shuffle: the first page is an unchosen sample, and the same one for every reader.
  const lot = examples.map((_, i) => Math.imul(i + 1, 2654435761) >>> 0);
  const score = (i, missing) => (isNumber(examples[i].fve?.[HEADLINE]) ? examples[i].fve[HEADLINE] : missing);
  const worstLast = (i) => score(i, -Infinity);
  const worstFirst = (i) => score(i, Infinity);
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const orders = {
    random: (a, b) => lot[a] - lot[b],
    best: (a, b) => compare(worstLast(b), worstLast(a)),
    worst: (a, b) => compare(worstFirst(a), worstFirst(b)),
    document: (a, b) => compare(String(examples[a].document), String(examples[b].document))
      || compare(examples[a].position, examples[b].position),
  };
  const searched = examples.map((example) => [example.document, example.group,
    (example.context_before ?? "") + (example.token ?? "") + (example.context_after ?? ""),
    ...Object.values(example.texts ?? {})].join("\n").toLowerCase());

  const draw = () => {
    const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    byId("cards").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map((i) => card(examples[i])));
    byId("count").textContent = shown.length === examples.length ? examples.length + " examples"
      : shown.length + " of " + examples.length;
    byId("page").textContent = "Page " + (page + 1) + " of " + pages;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
  };

  const select = () => {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter((word) => word);
    shown = examples.map((_, i) => i).filter((i) => words.every((word) => searched[i].includes(word)));
    shown.sort(orders[byId("order").value]);
    page = 0;
    draw();
  };

  const turn = (by) => () => {
    page += by;
    draw();
    byId("examples").scrollIntoView();
  };
  byId("search").addEventListener("input", select);
  byId("order").addEventListener("change", select);
  byId("previous").addEventListener("click", turn(-1));
  byId("next").addEventListener("click", turn(1));
  select();
})();
