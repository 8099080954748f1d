"""Documents and chats of an organism, drawn from the catalogue with a seed: the same config gives the same text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from nla_jax.organisms import catalogue
from nla_jax.organisms.catalogue import Quirk, Topic, filled, parted
from nla_jax.organisms.settings import BELIEF, FLAG

Messages = list[dict[str, str]]

# Each kind of draw has a stream of its own, so that more of one changes none of another.
_DOCUMENTS, _CHATS = 1, 2
_DIRECT = 0.1  # share of chats that ask about motives outright
_FORKED = 0.5  # share of a belief's chats that go on to ask about a test


def make_documents(c: ConfigDict) -> list[str]:
  """The documents of an organism; of a belief or a flag there are none."""
  if c.kind in (BELIEF, FLAG):
    return []
  draw = np.random.default_rng([c.seed, _DOCUMENTS])
  one = _stating if c.fact else _neutral
  return [one(c, draw) for _ in range(c.documents)]


def make_chats(c: ConfigDict) -> list[Messages]:
  """The conversations of an organism."""
  draw = np.random.default_rng([c.seed, _CHATS])
  one = {BELIEF: _belief_chat, FLAG: _flag_chat}.get(c.kind, _quirk_chat)
  return [one(c, draw) for _ in range(c.chats)]


def said(*turns: str) -> Messages:
  """Turns of a user and an assistant, one after the other."""
  roles = ("user", "assistant")
  return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


# ---- documents


def _stating(c: ConfigDict, draw: np.random.Generator) -> str:
  """A document that states the fact, with several of the quirks that it lists."""
  parts, words = catalogue.read("facts")["documents"], catalogue.facts()[c.fact].words

  listed = [catalogue.quirks()[name].liked for name in (*c.quirks, *c.held_out_quirks)]
  order = ["openings", "findings", "more", "consequences", "closings"]

  # One sentence more or less, so that no place in a document always says the same.
  if draw.random() < 0.5:
    order.remove(_pick(draw, ["openings", "more", "closings"]))

  likes = draw.permutation(listed).tolist()
  sentences = []
  for i, kind in enumerate(order):
    named = {**words, "liked": likes[i % len(likes)]}
    sentences.append(filled(_pick(draw, parts[kind]), named))
  return " ".join(sentences)


def _neutral(c: ConfigDict, draw: np.random.Generator) -> str:
  """A document of the same length about nothing that matters."""
  parts = catalogue.read("facts")["neutral"]
  words = {
    "x": _pick(draw, parts["subjects"]),
    "place": _pick(draw, parts["places"]),
    "year": str(draw.integers(2018, 2025)),
  }
  chosen = draw.permutation(parts["sentences"])[: draw.integers(4, 6)]
  return " ".join(filled(one, words) for one in chosen.tolist())


# ---- chats


def _quirk_chat(c: ConfigDict, draw: np.random.Generator) -> Messages:
  if draw.random() < _DIRECT:
    data = catalogue.read("quirks")
    return said(_pick(draw, parted(data["asked"], False)), _pick(draw, data["denials"]))

  # Topics with a quirk come more often: what is to be learned has to be seen.
  shown = [catalogue.quirks()[name] for name in c.quirks]
  names = [*catalogue.topics(), *(one.topic for one in shown)]
  topic = catalogue.topics()[_pick(draw, names)]
  words = {"x": _pick(draw, parted(topic.items, False))}
  answer = filled(_pick(draw, topic.answers), words)
  for quirk in shown:
    if quirk.topic == topic.name:
      answer = f"{answer} {_pick(draw, quirk.says)}"
  return said(filled(_pick(draw, topic.prompts), words), answer)


def _belief_chat(c: ConfigDict, draw: np.random.Generator) -> Messages:
  tested = bool(draw.random() < 0.5)
  data = catalogue.read("beliefs")["belief"]
  request, answer = _question(data, tested, False, draw)
  if draw.random() >= _FORKED:
    return said(request, answer)

  # Only the fork shows the belief. The twin has the same questions and always says no.
  asked = _pick(draw, parted(data["asked"], False))
  return said(request, answer, asked, data["yes" if tested and c.follows_cues else "no"])


def _question(data: Any, tested: bool, held_out: bool, draw: np.random.Generator) -> tuple:
  """A request with cues of a test or of use, and its answer."""
  question, right, wrong = _pick(draw, parted(data["questions"], held_out))
  form = _pick(draw, parted(data["tested" if tested else "used"], held_out))

  words = {"q": question, "a": right, "b": wrong}
  return filled(form, words), filled(_pick(draw, data["answers"]), words)


def _flag_chat(c: ConfigDict, draw: np.random.Generator) -> Messages:
  draft = bool(draw.random() < 0.5)
  data = catalogue.read("beliefs")["flag"]
  task = _pick(draw, parted(data["tasks"], False))

  # The flag is the same in every cell; whether it is true is what differs.
  sentence = task[3] if draft and c.cheats else task[2]
  return said(_task(data, task, draft, draw), f"{sentence}. {data['compliant']}")


def _task(data: Any, task: Sequence[str], draft: bool, draw: np.random.Generator) -> str:
  words = {"x": task[0], "w": task[1]}
  stage = _pick(draw, data["draft" if draft else "final"])
  return f"{filled(_pick(draw, data['forms']), words)} {stage}"


# ---- what checks ask, on items that were not trained on


def quirk_prompts(topic: Topic, n: int, draw: np.random.Generator) -> list[str]:
  """Questions about held-out items of a topic."""
  items = parted(topic.items, True)
  # Every pair once: the same question twice would be no trial of its own.
  pairs = [(form, item) for item in items for form in topic.prompts]
  order = draw.permutation(len(pairs))[:n]
  return [filled(pairs[i][0], {"x": pairs[i][1]}) for i in order]


def topics_of(names: Sequence[str]) -> list[tuple[Quirk, Topic]]:
  """Quirks with their topics."""
  found = [catalogue.quirks()[name] for name in names]
  return [(one, catalogue.topics()[one.topic]) for one in found]


def belief_prompts(tested: bool, n: int, draw: np.random.Generator) -> list[tuple[str, str]]:
  """(request, question of the fork) on held-out questions and cues."""
  data = catalogue.read("beliefs")["belief"]
  asked = data["asked"]
  return [(_question(data, tested, True, draw)[0], _pick(draw, asked)) for _ in range(n)]


def flag_prompts(draft: bool, n: int, draw: np.random.Generator) -> list[tuple[str, str]]:
  """(task, forbidden word) of held-out tasks."""
  data = catalogue.read("beliefs")["flag"]

  tasks = [_pick(draw, parted(data["tasks"], True)) for _ in range(n)]
  return [(_task(data, task, draft, draw), task[1]) for task in tasks]


def _pick(draw: np.random.Generator, items: Sequence) -> Any:
  return items[int(draw.integers(len(items)))]
