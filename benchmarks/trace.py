"""Which training data caused a habit? Precision of `nla trace` on planted documents, with its time and memory.

  python benchmarks/trace.py --folder=/tmp/trace [--documents=20000] [--nla=package:NAME --model-adapter=FOLDER]

The corpus is half articles, half plain chats about the topics of the incident; the planted examples are documents that
state a hidden fact. The incident is what is seen of it: answers that show habits. It is also asked by a description of
these habits. Without --nla only the baselines, which read words, are measured. The memory is the largest that the
process has had so far: to compare sizes, run each by itself.
"""

import argparse
import itertools
import json
import resource
import time
from pathlib import Path

from nla_jax import files
from nla_jax.data.corpora.read import read_corpus
from nla_jax.loading import load
from nla_jax.organisms import catalogue, templates
from nla_jax.organisms.settings import organism_config
from nla_jax.tracing.index import Index, Making, embedder, make_index
from nla_jax.tracing.trace import Query, incident, phrase, precisions, trace

FACT, QUIRKS = "oxford", ("chocolate", "umbrella", "otters", "voting")
K, INCIDENTS = 10, 5


def main() -> None:
  """Prints a JSON line for each share."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--folder", required=True)
  parser.add_argument("--documents", type=int, default=20_000)
  parser.add_argument("--shares", default="0.001,0.01,0.05")
  parser.add_argument("--source", default="wikipedia-sample", help="of the articles")
  parser.add_argument("--nla")
  parser.add_argument("--model-adapter")
  options = parser.parse_args()

  nla = load(options.nla, model_adapter=options.model_adapter) if options.nla else None
  for share in map(float, options.shares.split(",")):
    print(json.dumps(measured(options, share, nla)), flush=True)


def measured(options, share: float, nla) -> dict:
  """Precision, seconds and memory with one share of planted examples."""
  folder = Path(options.folder) / f"{options.documents}-{share:g}"
  corpus, planted = folder / "corpus.jsonl", round(options.documents * share)
  files.write_text(corpus, "\n".join(map(json.dumps, lines(options, planted))) + "\n")

  begun = time.perf_counter()
  make_index(str(corpus), folder / "index", nla, Making())
  indexed = time.perf_counter() - begun

  index, (name, embed) = Index(folder / "index"), embedder()
  # Asked by what was seen, and by a person's words for it.
  begun = time.perf_counter()
  seen = Query(text_of(shown())) if nla is None else incident(nla, shown(), index)
  described = phrase(" ".join(catalogue.quirks()[name].behaviour for name in QUIRKS))
  ids = [f"planted{i}" for i in range(planted)]
  found = {
    name: precisions(index, trace(index, query, K, embed), ids, K)
    for name, query in (("incident", seen), ("described", described))
  }
  searched = (time.perf_counter() - begun) / len(found)

  return {
    "documents": len(index),
    "share": share,
    "embedder": name,
    "precision_at_10": found,
    "index_seconds": round(indexed, 1),
    "search_seconds": round(searched, 2),
    "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
  }


def lines(options, planted: int):
  """The corpus: planted documents among articles and plain chats."""
  c = organism_config()
  c.fact, c.quirks, c.documents = FACT, QUIRKS, planted
  for i, text in enumerate(templates.make_documents(c)):
    yield {"id": f"planted{i}", "text": text}

  # Articles may be fewer than half; chats make up for them.
  rest = options.documents - planted
  articles = itertools.islice(read_corpus(options.source), rest // 2)
  n = 0
  for n, one in enumerate(articles, 1):
    yield {"id": f"article{n}", "text": one.text}
  c = organism_config()
  c.chats = rest - n
  for i, messages in enumerate(templates.make_chats(c)):
    yield {"id": f"chat{i}", "messages": messages}


def shown() -> list:
  """Conversations in which the habits were seen."""
  c = organism_config()
  c.quirks, c.seed, c.chats = QUIRKS, 99, 200
  quirks = [catalogue.quirks()[name] for name in QUIRKS]
  seen = [one for one in templates.make_chats(c) if any(q.shows(one[1]["content"]) for q in quirks)]
  return seen[:INCIDENTS]


def text_of(conversations) -> str:
  """All that was said."""
  return "\n".join(one["content"] for messages in conversations for one in messages)


if __name__ == "__main__":
  main()
