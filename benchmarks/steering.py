"""Whether an edited explanation steers the target: prompts with a known next word, beside three controls and a ceiling.

  python benchmarks/steering.py --nla=PAIR [--explanations=teacher] [--mode=replace] [--limit=N]

1. Manipulation check: of the prompts in `steering_prompts.py` those are kept that the unsteered target completes with
   the known word. Each has a twin, another one of its family whose word begins with another token.
2. Three edits of the explanation, each at the token where it was read:
   direct    at the last token, the known word becomes the twin's: the edited word is scored
   indirect  at the last token, the subject becomes the twin's ("France" -> "Italy"); "Rome" against "Paris" is scored
   subject   the same edit at the subject's own token
3. Scored against α: the share of prompts where the twin's word becomes likelier than the known one, and where it
   becomes the likeliest of all. The ceiling adds the change between the target's true activations in the two prompts,
   as an AR without error would.

`--explanations=teacher` edits what the readout teacher writes, in the format that a pair was trained on, so that only
the AR matters. Then PAIR may be a workdir whose AR alone is trained (`sft/ar`). Prompts whose explanation lacks a word
that is edited are left out and counted. Written to `benchmarks/results/steering*.json`, with tables printed last.
"""

import argparse
import itertools
import json
import types
from pathlib import Path

import numpy as np
from steering_prompts import FAMILIES

import nla_jax
from nla_jax import workdir
from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.text import encode
from nla_jax.config import load_config
from nla_jax.conversation.positions import choose
from nla_jax.data.teachers.readout import TopicWords, readout
from nla_jax.data.teachers.write import text_of_groups
from nla_jax.decoding.continuations import Steering
from nla_jax.errors import NLAError
from nla_jax.evaluation.intervals import bootstrap_mean
from nla_jax.interop.pairs.load import load_target
from nla_jax.models.injection import ADD, TURN
from nla_jax.progress import track
from nla_jax.reading.complete import Drawing, complete
from nla_jax.reading.effect_chart import effect_chart
from nla_jax.reading.steered import ARMS, MEANING
from nla_jax.run.run import Run
from nla_jax.training.checkpoint import load_params

RESULTS = Path(__file__).parent / "results"
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
EDITS = ("direct", "indirect", "subject")
CEILING = "true"
# Of the box's teacher, for pairs that are no workdir.
TEACHER = types.SimpleNamespace(last_words=6, max_tokens=44, next_tokens=4, topic_words=3)
SCORED = Drawing(max_new_tokens=0)


class Prompt(types.SimpleNamespace):
  """One prompt: family, subject, word, text, tokens, token (the word's first), logprobs; and `twin`, another one."""


def load_pair(path: str) -> tuple[NLA, TopicWords, types.SimpleNamespace]:
  """The pair, the topics of its corpus and its teacher's settings; of a workdir without an AV, with the AR alone."""
  folder = Path(path)
  if not (folder / workdir.CONFIG).is_file():
    return nla_jax.load(path), TopicWords([]), TEACHER

  run = Run(load_config(folder / workdir.CONFIG), folder)
  documents = [run.store.documents[i] for i in range(len(run.store.documents))]
  topics = TopicWords(text_of_groups(documents, run.pretrained.tokenizer))
  if workdir.params_of(run.path("rl"), "av").exists():
    return nla_jax.load(path), topics, run.config.teacher

  # The AV is never asked: where adapters are trained its tree is the base, which is the target as well.
  ar = run.whole(load_params(workdir.params_of(run.path("sft"), "ar")))
  av = run.whole({"transformer": {}})
  nla = NLA(run.pair(1.0), av, ar, run.config.model, None, load_target, run.config.model_adapter)
  return nla, topics, run.config.teacher


def checked_prompts(nla: NLA, limit: int | None) -> tuple[list[Prompt], int]:
  """Prompts that the unsteered target completes rightly, each with its twin; and how many there were."""
  tokenizer, prompts = nla.pair.tokenizer, []
  for family, (template, pairs) in FAMILIES.items():
    for subject, word in pairs.items():
      text = template.format(subject)
      tokens, first = nla.tokens(text), encode(tokenizer, f" {word}")[0]
      prompts.append(
        Prompt(family=family, subject=subject, word=word, text=text, tokens=tokens, token=first)
      )

  found = complete(nla.whole_target, [p.tokens.ids for p in prompts], SCORED, logprobs=True)
  kept = []
  for prompt, logprobs in zip(prompts, found.logprobs, strict=True):
    prompt.logprobs = logprobs
    if int(logprobs.argmax()) == prompt.token:
      kept.append(prompt)

  # The next one of the family, the first after the last; a family of one has no twin.
  for _, group in itertools.groupby(kept, key=lambda prompt: prompt.family):
    members = list(group)
    for prompt, twin in zip(members, members[1:] + members[:1]):
      prompt.twin = None if twin.token == prompt.token else twin
  kept = [prompt for prompt in kept if prompt.twin is not None]
  # Evenly, so that each family keeps its share.
  chosen = np.linspace(0, len(kept) - 1, min(limit or len(kept), len(kept)))
  return [kept[round(i)] for i in chosen], len(prompts)


def position_of(prompt: Prompt, edit: str) -> int:
  """The token that is explained: the last one, or the subject's last one."""
  if edit != "subject":
    return len(prompt.tokens) - 1
  return choose(prompt.tokens, f"end:{prompt.subject}")[-1]


def teachers_explanation(nla: NLA, prompt: Prompt, position: int, topics, settings) -> str:
  """What the readout teacher writes at a token of a prompt."""
  ids = prompt.tokens.ids[: position + 1]
  (logprobs,) = complete(nla.whole_target, [ids], SCORED, logprobs=True).logprobs
  likeliest = np.argsort(-logprobs)[:6]
  return readout(nla.pair.tokenizer, ids, likeliest, topics, settings)


def edit_of(prompt: Prompt, edit: str) -> dict[str, str]:
  """{word: another}."""
  if edit == "direct":
    return {prompt.word: prompt.twin.word}
  return {prompt.subject: prompt.twin.subject}


def ceiling(nla: NLA, prompt: Prompt, edit: str, mode: str) -> tuple[dict, dict]:
  """With the true activations' change in the place of the AR's.

  Returns:
    {α: whether the twin's word is the likeliest} and {α: log p(twin's word) − log p(word)}.
  """
  places = [position_of(one, edit) for one in (prompt, prompt.twin)]
  ids = [prompt.tokens.ids, prompt.twin.tokens.ids]
  own, other = (rows[0] for rows in nla.activations(ids, [[place] for place in places]))
  unit = [h / np.linalg.norm(h) for h in (own, other)]

  strengths = STRENGTHS if mode == "add" else (1.0,)
  vector = unit[1] - unit[0] if mode == "add" else unit[1]
  n = len(strengths)
  steering = Steering(
    np.tile(vector, (n, 1)),
    [[places[0]]] * n,
    nla.pair.layer,
    ADD if mode == "add" else TURN,
    np.array(strengths, np.float32),
  )
  found = complete(nla.whole_target, ids[:1] * n, SCORED, steering=steering, logprobs=True)
  tops = (found.logprobs.argmax(axis=1) == prompt.twin.token).tolist()
  return dict(zip(strengths, tops)), dict(
    zip(
      strengths, map(float, found.logprobs[:, prompt.twin.token] - found.logprobs[:, prompt.token])
    )
  )


def measure(nla: NLA, prompts: list[Prompt], edit: str, options, teacher) -> tuple[list[dict], int]:
  """{arm: {α: logit difference}} of each prompt, and how many explanations lacked the edited word."""
  rows, lacking = [], 0
  strengths = STRENGTHS if options.mode == "add" else (1.0,)
  for prompt in track(prompts, f"steer {edit}", "prompt"):
    position = position_of(prompt, edit)
    text = teachers_explanation(nla, prompt, position, *teacher) if teacher else None
    # The words are scored by their first tokens, whatever the edit is about.
    words = [one for one in (prompt.twin.word, prompt.word) if edit != "direct"]
    try:
      found = nla.steer(
        prompt.text,
        position,
        edit=edit_of(prompt, edit),
        strength=strengths,
        explanation=text,
        words=words,
        mode=options.mode,
        tokens=0,
        seed=options.seed,
      )
    except NLAError as error:
      # Only an explanation without the word is part of the measurement.
      if "the explanation has no" not in str(error) and "wrote no explanation" not in str(error):
        raise
      lacking += 1
      continue

    before = float(prompt.logprobs[prompt.twin.token] - prompt.logprobs[prompt.token])
    effects = {
      arm: {
        strength: before + effect
        for strength, effect in found.effect(arm, prompt.twin.word, prompt.word)
      }
      for arm in ARMS
    }
    tops = {
      arm: {s: found.arm(arm, s).top.id == prompt.twin.token for s in strengths} for arm in ARMS
    }
    tops[CEILING], effects[CEILING] = ceiling(nla, prompt, edit, options.mode)
    about = {"family": prompt.family, "text": prompt.text, "explanation": found.explanation}
    rows.append(
      {
        **about,
        "edited": found.edited,
        "cosine": found.cosine,
        "before": before,
        "effects": effects,
        "tops": tops,
      }
    )
  return rows, lacking


def summary(rows: list[dict]) -> dict[str, dict]:
  """Of each arm and α: the share of prompts that flipped, its interval, and the mean change in nats."""
  found = {}
  families = np.array([row["family"] for row in rows])
  for arm in (*ARMS, CEILING):
    for strength in rows[0]["effects"][arm]:
      after = np.array([row["effects"][arm][strength] for row in rows])
      share = bootstrap_mean((after > 0).astype(float), np.arange(len(rows)))
      change = after - np.array([row["before"] for row in rows])
      by_family = {
        name: float((after[families == name] > 0).mean()) for name in dict.fromkeys(families)
      }
      found.setdefault(arm, {})[strength] = {
        "share": share.value,
        "top": float(np.mean([row["tops"][arm][strength] for row in rows])),
        "ci95": share.ci95,
        "change": float(change.mean()),
        "families": by_family,
      }
  return found


def table(found: dict[str, dict], key: str) -> str:
  """A table of Markdown: a row for each arm, a column for each α."""
  meaning = {**MEANING, CEILING: "true activations (ceiling)"}
  strengths = list(next(iter(found.values())))
  lines = [
    "| vector | " + " | ".join(f"α = {one:g}" for one in strengths) + " |",
    "|---" * (len(strengths) + 1) + "|",
  ]
  for arm, cells in found.items():
    shown = []
    for cell in cells.values():
      ends = "" if key != "share" or not cell["ci95"] else " [{:.2f}, {:.2f}]".format(*cell["ci95"])
      shown.append(f"{cell[key]:.2f}{ends}")
    lines.append(f"| {meaning[arm]} | " + " | ".join(shown) + " |")
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--nla", required=True)
  parser.add_argument("--explanations", choices=("read", "teacher"), default="read")
  parser.add_argument("--mode", choices=("add", "replace"), default="add")
  parser.add_argument("--edits", default=",".join(EDITS))
  parser.add_argument("--limit", type=int)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--name", default="steering", help="of the result's file")
  options = parser.parse_args()

  nla, *teacher = load_pair(options.nla)
  prompts, candidates = checked_prompts(nla, options.limit)
  print(
    f"{len(prompts)} prompts of {candidates} are completed with the known word and have a twin",
    flush=True,
  )
  about = {
    "nla": Path(options.nla).name,
    **{key: getattr(options, key) for key in ("explanations", "mode", "seed")},
    "prompts": len(prompts),
    "candidates": candidates,
  }
  # Edits that were measured of the same pair on the same prompts are kept: one of them takes a while.
  file = RESULTS / f"{options.name}.json"
  results = json.loads(file.read_text()) if file.is_file() else {}
  results = (results if results.items() >= about.items() else {}) | about
  for edit in options.edits.split(","):
    rows, lacking = measure(
      nla, prompts, edit, options, teacher if options.explanations == "teacher" else None
    )
    print(f"\n{edit}: {len(rows)} prompts, {lacking} explanations lack the word", flush=True)
    if not rows:
      continue
    found = summary(rows)
    results[edit] = {"n": len(rows), "lacking": lacking, "summary": found, "rows": rows}
    for key in ("share", "top", "change"):
      print(f"\n{key}\n{table(found, key)}")
    curves = {MEANING[arm]: [(a, cell["share"]) for a, cell in found[arm].items()] for arm in ARMS}
    RESULTS.mkdir(exist_ok=True)
    chart = effect_chart(curves, "share of prompts where the twin's word is the likelier one")
    (RESULTS / f"{options.name}_{edit}.svg").write_text(chart)
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
  main()
