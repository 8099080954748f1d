"""Prose of a MediaWiki XML dump: the sample of English Wikipedia that the `gensim` package carries for its tests.

A document is one paragraph of running text of an article, a group is the article. Tables, references, files,
headings, lists and the templates that hold no words of the sentence are left out.
"""

import bz2
import html
import importlib.util
import itertools
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from nla_jax.data.corpora.document import Document, Records
from nla_jax.errors import NLAError

SOURCE = "wikipedia-sample"  # as a config's `corpus` names it
SAMPLE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

MINIMUM_CHARACTERS = 200
MINIMUM_LETTERS = 0.7  # share of letters among a paragraph's characters; prose has about 0.8, tables of numbers less

# Tags whose contents are not the sentence's words.
_DROPPED_TAGS = frozenset(
  (
    "ref",
    "references",
    "table",
    "gallery",
    "math",
    "chem",
    "timeline",
    "score",
    "imagemap",
    "syntaxhighlight",
    "source",
    "pre",
    "noinclude",
    "includeonly",
    "hr",
  )
)
_LIST_TAGS = frozenset(("li", "dd", "dt"))
_BLOCK_TAGS = frozenset(("blockquote", "div", "p", "center", "ul", "ol", "dl", "tr"))
# Templates that stand inside sentences, and which positional parameters are their words.
_WORDS_OF_TEMPLATE = {
  "lang": ("2",),
  "transl": ("2",),
  "transliteration": ("2",),
  "nowrap": ("1",),
  "nobr": ("1",),
  "sic": ("1",),
  "as of": ("1",),
  "convert": ("1", "2"),
  "cvt": ("1", "2"),
  "ship": ("1", "2"),
  "abbr": ("1",),
  "small": ("1",),
  "nihongo": ("1",),
  "mvar": ("1",),
  "math": ("1",),
  "var": ("1",),
  "frac": ("1",),
  "quote": ("1",),
  "'s": (),
  "chem": ("1", "2", "3", "4", "5", "6"),
  "usd": ("1",),
  "gbp": ("1",),
  "sup": ("1",),
  "sub": ("1",),
  "e": ("1",),
  "val": ("1",),
  "formatnum": ("1",),
  "iso": ("1",),
  "em": ("1",),
  "strong": ("1",),
  "polytonic": ("1",),
}
_LITERAL_TEMPLATE = {
  "'s": "'s",
  "ndash": "–",
  "spaced ndash": " – ",
  "snd": " – ",
  "mdash": "—",
  "'": "'",
  "nbsp": " ",
  "spaces": " ",
  "•": " ",
  "·": " ",
  "!": "",
  "-": "",
}
_LIST_ITEM = "\x00"  # stands where a line began with *, #, : or ;

# A bracket pair whose words were all dropped: "( ; )", "( , )", "()".
_EMPTY_BRACKETS = re.compile(r"\s*[(\[][\s,;:/–-]*[)\]]")
_BRACKET_START = re.compile(r"\([\s,;:]+")
_BRACKET_END = re.compile(r"[\s,;:]+\)")
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.;:)])(?=\s|$)")
_STRAY_QUOTES = re.compile(r"''+(?!s\b)|'+(?='s\b)")  # italics and bold that were never closed
_BEHAVIOUR_SWITCH = re.compile(r"__[A-Z]+__")
_UNPARSED = ("{{", "}}", "[[", "]]", "{|", "|}", "<ref", "</ref")  # markup that was never closed
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*$")


def read_sample() -> Records:
  """Records of the sample: its articles, of which each paragraph of prose is a document.

  Raises:
    NLAError: `mwparserfromhell` or `gensim`, or the file inside it, is missing.
  """
  if importlib.util.find_spec("mwparserfromhell") is None:
    raise NLAError(
      "the corpus 'wikipedia-sample' is cleaned with the Python package mwparserfromhell, which is not "
      "installed; install the extra `demo` (pip install 'nla_jax[demo]')"
    )
  return Records(enumerate(read_pages(sample_path())), _documents)


def _documents(_: int, page: tuple[str, str]) -> Iterator[Document]:
  title, wikitext = page
  for i, paragraph in enumerate(paragraphs(wikitext)):
    yield Document(f"{title}#{i}", paragraph, title)


def sample_path() -> str:
  """Returns the path of the Wikipedia sample in the installed `gensim`.

  Raises:
    NLAError: `gensim` is not installed, or holds no such file.
  """
  # Found, not imported: importing gensim would want scipy.
  spec = importlib.util.find_spec("gensim")
  if spec is None or spec.origin is None:
    raise NLAError(
      "the corpus 'wikipedia-sample' lies inside the Python package gensim, which is not installed; "
      "pip install --no-deps gensim (only its file is read), or name another --config.corpus"
    )
  path = os.path.join(os.path.dirname(spec.origin), SAMPLE)
  if not os.path.isfile(path):
    raise NLAError(
      f"the installed gensim has no file {SAMPLE}; install the gensim that launch/demo-data.txt names, or "
      "name another --config.corpus"
    )
  return path


def read_pages(path: str) -> Iterator[tuple[str, str]]:
  """Yields (title, wikitext) of every article of a bz2-compressed MediaWiki dump, in its order.

  An article is a page of namespace 0 that is no redirect.

  Raises:
    NLAError: the file cannot be read as such a dump.
  """
  try:
    with bz2.open(path) as stream:
      for _, element in ET.iterparse(stream):
        if element.tag.rpartition("}")[2] != "page":
          continue

        # The dump's XML namespace, which stands before every tag: "{http://…}".
        space = element.tag[: -len("page")]
        if element.findtext(space + "ns") == "0" and element.find(space + "redirect") is None:
          text = element.findtext(f"{space}revision/{space}text")
          yield element.findtext(space + "title") or "", text or ""
        element.clear()  # or every page stays in memory
  except (OSError, EOFError, ET.ParseError) as error:
    raise NLAError(
      f"{path} is not a readable bz2 MediaWiki dump ({error}); reinstall gensim or name another "
      "--config.corpus"
    ) from None


def paragraphs(wikitext: str) -> list[str]:
  """Returns the prose paragraphs of one article, in order, each on one line.

  A paragraph is kept when it has at least `MINIMUM_CHARACTERS` characters, starts with no list marker, ends like a
  sentence and is mostly letters.
  """
  import mwparserfromhell

  text = _BEHAVIOUR_SWITCH.sub("", _render(mwparserfromhell.parse(wikitext, skip_style_tags=False)))

  kept = []
  for block in re.split(r"\n[ \t]*\n", text):
    lines = [line.strip() for line in block.split("\n")]
    lines = [line for line in lines if line]

    # A list may follow a sentence without a blank line, so runs of list items are cut out of a block.
    for is_list, run in itertools.groupby(lines, key=lambda line: line.startswith(_LIST_ITEM)):
      if is_list:
        continue
      paragraph = _tidy(" ".join(run))
      if _is_prose(paragraph):
        kept.append(paragraph)
  return kept


def _render(code) -> str:
  """Returns the words of parsed wikitext; list markers become `_LIST_ITEM`, block ends become blank lines."""
  from mwparserfromhell import nodes

  parts = []
  for node in code.nodes:
    if isinstance(node, nodes.Text):
      parts.append(node.value)
    elif isinstance(node, nodes.Wikilink):
      parts.append(_render_link(node))
    elif isinstance(node, nodes.ExternalLink):
      if node.title is not None:
        parts.append(_render(node.title))
    elif isinstance(node, nodes.HTMLEntity):
      parts.append(node.normalize())
    elif isinstance(node, nodes.Template):
      parts.append(_render_template(node))
    elif isinstance(node, nodes.Heading):
      parts.append("\n\n")
    elif isinstance(node, nodes.Tag):
      parts.append(_render_tag(node))
  return "".join(parts)


def _render_tag(tag) -> str:
  name = str(tag.tag).strip().lower()
  if name in _LIST_TAGS:
    return f"\n{_LIST_ITEM}" + ("" if tag.contents is None else _render(tag.contents))
  if name in _DROPPED_TAGS or tag.contents is None:
    return "\n" if name in ("br", "hr") else ""

  words = _render(tag.contents)
  return f"\n\n{words}\n\n" if name in _BLOCK_TAGS else words


def _render_link(link) -> str:
  target = str(link.title).strip()
  namespace, colon, _ = target.partition(":")

  # [[File:…]], [[Category:…]] and links to other languages are no words; [[:Category:…]] and titles such as
  # "2001: A Space Odyssey" are.
  if colon and (
    namespace.lower() in ("file", "image", "category", "media")
    or re.fullmatch(r"[a-z]{2,3}(-[a-z-]+)?|simple", namespace)
  ):
    return ""
  return _render(link.text) if link.text is not None else target.lstrip(":")


def _render_template(template) -> str:
  name = str(template.name).strip().lower().replace("_", " ")
  if name in _LITERAL_TEMPLATE:
    return _LITERAL_TEMPLATE[name]
  if name.startswith("lang-") and template.has("1"):
    return _render(template.get("1").value)

  # A template that is in no table (an infobox, a citation) holds no words of the sentence.
  keys = _WORDS_OF_TEMPLATE.get(name, ())
  wanted = [template.get(key).value for key in keys if template.has(key)]
  joint = "" if name == "chem" else " "  # a formula is one word
  return joint.join(_render(value).strip() for value in wanted)


def _tidy(text: str) -> str:
  """Returns one line with single spaces, without the brackets and commas that dropped templates left behind."""
  text = _STRAY_QUOTES.sub("", html.unescape(text))  # the dump escapes some entities twice
  text = " ".join(text.replace(_LIST_ITEM, " ").split())

  # Brackets inside brackets become empty only once the inner ones are gone.
  before = None
  while before != text:
    before = text
    text = _EMPTY_BRACKETS.sub("", text)

  text = _BRACKET_END.sub(")", _BRACKET_START.sub("(", text))
  return _SPACE_BEFORE_STOP.sub(r"\1", text).strip()


def _is_prose(paragraph: str) -> bool:
  if len(paragraph) < MINIMUM_CHARACTERS or not _SENTENCE_END.search(paragraph):
    return False
  if any(mark in paragraph for mark in _UNPARSED):
    return False
  return sum(map(str.isalpha, paragraph)) >= MINIMUM_LETTERS * len(paragraph)
