// Words that texts have in common, and how one text became another.

const SEGMENTS = "Segmenter" in Intl ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

// Words that any two texts share and that therefore say nothing about agreement.
const COMMON = new Set(
  (
    "a about after all also an and any are as at be because been before being both but by can could did do " +
    "does each either for from had has have he her here his how i if in into is it its just like may might " +
    "more most no nor not of on one only or other our out over own same she should since so some such than " +
    "that the their them then there these they this those through to too under until up upon very was we " +
    "were what when where which while who whose will with would you your likely next text token word words"
  ).split(" "),
);

/** Pieces of a text, in order, each with whether it is a word. Joined, they are the text. */
export const pieces = (text) => {
  if (SEGMENTS)
    return [...SEGMENTS.segment(text)].map((one) => ({ text: one.segment, word: Boolean(one.isWordLike) }));
  return (text.match(/[\p{L}\p{N}\p{M}'’]+|[^\p{L}\p{N}\p{M}'’]+/gu) ?? []).map((one) => ({
    text: one,
    word: /[\p{L}\p{N}]/u.test(one),
  }));
};

const key = (word) => word.toLowerCase();

/** Whether a word says something by itself. */
const telling = (word) => !COMMON.has(word) && (word.length > 2 || /[^\x00-\x7f]/.test(word));

/** Telling words of a text, in lower case. */
export const tellingWords = (text) =>
  new Set(
    pieces(text ?? "")
      .filter((piece) => piece.word)
      .map((piece) => key(piece.text))
      .filter(telling),
  );

/** Of each telling word in at least two of the texts: in how many it is. */
export const inCommon = (texts) => {
  const counts = new Map();
  for (const text of texts)
    for (const word of tellingWords(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  return new Map([...counts].filter(([, count]) => count > 1));
};

/** Runs of a text, each with a word's mark: `markOf(word)` names it, or null. */
export const marked = (text, markOf) => {
  const runs = [];
  for (const piece of pieces(text)) {
    const mark = piece.word ? markOf(key(piece.text)) : null;
    const last = runs.at(-1);
    if (last && last.mark === mark && mark === null) last.text += piece.text;
    else runs.push({ text: piece.text, mark });
  }
  return runs;
};

/** How `before` became `after`: runs that are "same", "gone" or "new". By the longest common run of pieces. */
export const difference = (before, after) => {
  const a = pieces(before).map((piece) => piece.text);
  const b = pieces(after).map((piece) => piece.text);
  const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i][j] =
        a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }

  const runs = [];
  const add = (kind, text) => {
    if (runs.at(-1)?.kind === kind) runs.at(-1).text += text;
    else runs.push({ kind, text });
  };
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("same", a[i]);
      i++;
      j++;
    } else if (i < a.length && (j === b.length || longest[i + 1][j] >= longest[i][j + 1])) add("gone", a[i++]);
    else add("new", b[j++]);
  }
  return smooth(runs);
};

/** Joins changes that only a space or a mark parts: a phrase that was replaced reads as one change. */
const smooth = (runs) => {
  const joined = [];
  runs.forEach((run, i) => {
    const between = run.kind === "same" && i > 0 && i < runs.length - 1 && !/[\p{L}\p{N}]/u.test(run.text);
    if (between) joined.push({ kind: "gone", text: run.text }, { kind: "new", text: run.text });
    else joined.push(run);
  });

  const result = [];
  for (let i = 0; i < joined.length;) {
    if (joined[i].kind === "same") {
      result.push(joined[i++]);
      continue;
    }
    const change = { gone: "", new: "" };
    for (; i < joined.length && joined[i].kind !== "same"; i++) change[joined[i].kind] += joined[i].text;
    for (const kind of ["gone", "new"]) if (change[kind]) result.push({ kind, text: change[kind] });
  }
  return result;
};
