"""Conversations of two people who do not know each other: the data of the Python package `chitchat-dataset`.

A document is a piece of a conversation: turns in a row of together at most 640 characters, about as many tokens as a
paragraph has. Who speaks first in it is the user, the other one the assistant; what one of them sends in a row is one
message. Of the package's 7168 conversations 3108 have two people, four turns and 200 characters.

A group is a circle of people. No person may be in two splits, so all conversations of a person belong to one group.
Taken literally that gives one group of 3045 conversations and 54 small ones: 1006 people, two of whom talked in 475 and
445 of the conversations, are nearly all linked. So the people are cut into circles of at most 60 conversations, and the
conversations between two circles are left out. 1398 in 137 groups remain, which make 7921 pieces. Two other cuts keep
fewer: without the 40 busiest people 850 conversations remain, of which 703 are still one group; and where each person
is put into a split by chance, a conversation has both of its people in one split in about 31 of 100 cases.
"""

import collections
import importlib.util
import json
import os
from collections.abc import Iterable, Sequence

from nla_jax.data.corpora.document import Document, Records
from nla_jax.errors import NLAError

SOURCE = "chitchat-sample"  # as a config's `corpus` names it
FILE = "dataset.json"

MINIMUM_TURNS = 4  # less is a greeting that nobody answered
MINIMUM_CHARACTERS = 200
MOST_OF_PIECE = 640  # characters of a piece, but that it has two turns at least
# Conversations of a circle; a larger one would be too much of a split to be drawn by chance.
MOST_OF_GROUP = 60

Turn = tuple[str, str]  # who, and what was said
Pair = tuple[str, str]  # two people, sorted


def read_sample() -> Records:
  """Returns the records of the sample: conversations within a circle, of which each piece is a document.

  Raises:
    NLAError: `chitchat-dataset`, or the file inside it, is missing or damaged.
  """
  return read_conversations(sample_path())


def sample_path() -> str:
  """Returns the path of the conversations in the installed `chitchat-dataset`.

  Raises:
    NLAError: the package is not installed, or holds no such file.
  """
  # Found, not imported: only its file is wanted.
  spec = importlib.util.find_spec("chitchat_dataset")
  if spec is None or spec.origin is None:
    raise NLAError(
      f"the corpus {SOURCE!r} lies inside the Python package chitchat-dataset, which is not installed; "
      "pip install --no-deps chitchat-dataset (only its file is read), or name another --config.corpus"
    )
  path = os.path.join(os.path.dirname(spec.origin), FILE)
  if not os.path.isfile(path):
    raise NLAError(
      f"the installed chitchat-dataset has no file {FILE}; install the one that launch/demo-data.txt names, "
      "or name another --config.corpus"
    )
  return path


def read_conversations(path: str, most: int = MOST_OF_GROUP) -> Records:
  """Returns the records of a file {id: {"messages": [[{"text", "sender"}, …], …]}}, in the file's order.

  Args:
    path: of the JSON file.
    most: conversations of a group.

  Raises:
    NLAError: the file is no such JSON.
  """
  try:
    with open(path, encoding="utf-8") as file:
      given = json.load(file)
    conversations = {name: _turns(one["messages"]) for name, one in given.items()}
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise NLAError(
      f"{path} does not hold conversations ({type(error).__name__}: {error}); install chitchat-dataset again"
    ) from None

  wanted = {name: turns for name, turns in conversations.items() if _is_conversation(turns)}
  circle = find_circles([_pair(turns) for turns in wanted.values()], most)

  def documents(_: int, record: tuple[str, list[Turn]]) -> list[Document]:
    name, turns = record
    group = circle[turns[0][0]]
    return [
      Document(f"{name}#{i}", "", group, _messages(piece))
      for i, piece in enumerate(_pieces(turns))
      if _size(piece) >= MINIMUM_CHARACTERS
    ]

  within = ((name, turns) for name, turns in wanted.items() if _is_within(_pair(turns), circle))
  return Records(enumerate(within), documents)


def _turns(messages: Iterable[Iterable[dict]]) -> list[Turn]:
  """Joins what one person sends in a row."""
  turns: list[Turn] = []
  for message in (message for several in messages for message in several):
    who, words = message["sender"], message["text"].strip()
    if turns and turns[-1][0] == who and words:
      turns[-1] = who, f"{turns[-1][1]}\n{words}"
    elif words:
      turns.append((who, words))
  return turns


def _pieces(turns: Sequence[Turn]) -> list[list[Turn]]:
  """Cuts a conversation between its turns; a last turn that stands alone belongs to the piece before it."""
  pieces: list[list[Turn]] = [[]]
  for turn in turns:
    full = _size([*pieces[-1], turn]) > MOST_OF_PIECE
    if full and len(pieces[-1]) >= 2:
      pieces.append([])
    pieces[-1].append(turn)

  if len(pieces) > 1 and len(pieces[-1]) == 1:
    alone = pieces.pop()
    pieces[-1] += alone
  return pieces


def _messages(piece: Sequence[Turn]) -> tuple[dict[str, str], ...]:
  roles = {piece[0][0]: "user", piece[1][0]: "assistant"}
  return tuple({"role": roles[who], "content": words} for who, words in piece)


def _size(turns: Iterable[Turn]) -> int:
  return sum(len(words) for _, words in turns)


def _is_conversation(turns: Sequence[Turn]) -> bool:
  if len(turns) < MINIMUM_TURNS or len({who for who, _ in turns}) != 2:
    return False
  return _size(turns) >= MINIMUM_CHARACTERS


def _pair(turns: Sequence[Turn]) -> Pair:
  one, other = sorted({who for who, _ in turns})
  return one, other


def _is_within(pair: Pair, circle: dict[str, str]) -> bool:
  return circle[pair[0]] == circle[pair[1]]


def find_circles(pairs: Iterable[Pair], most: int) -> dict[str, str]:
  """Cuts people into circles so that many of the conversations are within a circle. Nothing here is random.

  1. Each person joins the circle with which they have most conversations, as far as there is room.
  2. Circles with most conversations between them become one.
  3. Each person may change once more, to where they have more conversations.

  Args:
    pairs: the two people of each conversation.
    most: conversations within a circle.

  Returns:
    {person: name of their circle}.
  """
  talks = collections.Counter(pairs)
  circle = {who: who for pair in talks for who in pair}
  _move_people(circle, talks, most)
  _merge_circles(circle, talks, most)
  _move_people(circle, talks, most)
  return circle


def _within(circle: dict[str, str], talks: dict[Pair, int]) -> collections.Counter:
  """Counts the conversations within each circle."""
  sizes = collections.Counter()
  for pair, count in talks.items():
    if _is_within(pair, circle):
      sizes[circle[pair[0]]] += count
  return sizes


def _move_people(circle: dict[str, str], talks: dict[Pair, int], most: int) -> None:
  partners: dict[str, dict[str, int]] = collections.defaultdict(dict)
  for (one, other), count in talks.items():
    partners[one][other] = partners[other][one] = count
  sizes = _within(circle, talks)

  # People of few conversations first: they have nowhere else to go. Every move keeps more, so this ends.
  order = sorted(partners, key=lambda who: (sum(partners[who].values()), who))
  moved = True
  while moved:
    moved = False
    for who in order:
      shared = collections.Counter()
      for other, count in partners[who].items():
        shared[circle[other]] += count
      old, kept = circle[who], shared[circle[who]]
      room = [(-n, to) for to, n in shared.items() if n > kept and sizes[to] + n <= most]
      if room:
        gain, to = min(room)
        sizes[old] -= kept
        sizes[to] -= gain
        circle[who], moved = to, True


def _merge_circles(circle: dict[str, str], talks: dict[Pair, int], most: int) -> None:
  while True:
    sizes, between = _within(circle, talks), collections.Counter()
    for pair, count in talks.items():
      if not _is_within(pair, circle):
        between[tuple(sorted(circle[who] for who in pair))] += count

    fits = ((-n, two) for two, n in between.items() if n + sizes[two[0]] + sizes[two[1]] <= most)
    best = min(fits, default=None)
    if best is None:
      return
    one, other = best[1]
    for who, name in circle.items():
      if name == other:
        circle[who] = one
