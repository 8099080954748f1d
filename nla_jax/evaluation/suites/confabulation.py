"""Which claims of the explanations are true, and can one know without the document?

1. Claims are parsed, and judged by the document and the target's own predictions: precision by field and level, of the
   explanations, of the teacher's text and of another row's explanations, beside what the same claims would be by luck.
2. The pair is asked about its own claims: does the AR need them, do they come again, how probable were they.
3. A confidence is made of all that, calibrated by document.
"""

from nla_jax.errors import NLAError
from nla_jax.evaluation import variants
from nla_jax.evaluation.claims import evidence, trust
from nla_jax.evaluation.claims.confidence import DATA
from nla_jax.evaluation.claims.evidence import Options, Read
from nla_jax.evaluation.claims.extract import claims_by
from nla_jax.evaluation.claims.precision import Verdicts, precision_scores, verdicts
from nla_jax.evaluation.claims.verdict import Context, contexts_of
from nla_jax.evaluation.findings import Finding, Gate, Score
from nla_jax.evaluation.judges.language_model import Asks
from nla_jax.evaluation.judges.provider import Client, read_provider
from nla_jax.evaluation.subject import Subject
from nla_jax.evaluation.suite import LeftOutError, Measured, Suite
from nla_jax.progress import say

NAME = "confabulation"
_QUESTION = "Which claims of the explanations are true, and can one know without the document?"
_SKYLINE = 0.8  # precision that the teacher's own text must have, or the parser does not fit it
_EXAMPLES = 8


def run(subject: Subject) -> Measured:
  """Measures precision, evidence and confidence of the claims of the first rows, as many as the preset has items."""
  subject = variants.first_rows(subject, subject.settings.items)
  fixed = {"samples": subject.settings.bootstrap_samples, "seed": subject.seed}

  # 1. What is true.
  contexts = contexts_of(subject)
  others = [contexts[i] for i in subject.other_rows]
  found = verdicts(subject.sampled.texts, contexts)
  if not found.claims:
    raise LeftOutError(
      "the explanations hold no claims that the document can judge; give claims by a provider"
    )
  shuffled = [subject.sampled.texts[i] for i in subject.other_rows]
  scores, sources = [], {**variants.texts_by_row(subject), "shuffled": shuffled}
  for row, texts in sources.items():
    # Another row's explanation is luck already: its chance is that of the explanations.
    by_luck = sources["explanation"] if row == "shuffled" else texts
    mine, lucky = verdicts(texts, contexts), verdicts(by_luck, others)
    scores += precision_scores(row, mine, lucky, subject.groups, **fixed)
  gates = _gates(scores)
  if subject.settings.judge:
    client = Client(read_provider(subject.settings.judge))
    more_scores, more_gates = _by_provider(subject, client, contexts)
    scores, gates = scores + more_scores, gates + more_gates

  # 2. and 3. What the pair itself gives away.
  options, drawn = _drawn(subject)
  gathered = _gathered(subject, subject.sampled.texts, drawn, options)
  known = trust.trust(found, gathered, subject.groups, options, **fixed)

  # What another row says, with the evidence of this one: a confidence that believes it knows nothing.
  if known.model is not None:
    planted = sources["shuffled"]
    liar = verdicts(planted, contexts), _gathered(subject, planted, drawn, options)
    more, gate = trust.planted_liar(known.model, *liar, subject.groups, **fixed)
    scores, gates = scores + more, [*gates, gate]
  curves = {"confidence": known.curve, "as it should be": [(0.0, 0.0), (1.0, 1.0)]}
  finding = Finding(
    _QUESTION,
    f"{_verdict(scores)} {known.verdict}",
    "share of 1; FVE; nats per token",
    tuple(scores + known.scores),
    tuple(gates + known.gates),
    curves if known.curve else {},
    ("confidence", "share of claims that are true"),
    tuple(_examples(subject, found, known, contexts)),
    {} if known.model is None else {DATA: known.model.to_json()},
  )
  return Measured({}, findings={NAME: finding})


def explanations(subject: Subject) -> int:
  """Counts the explanations: of the positions before, further samples, and those of the AV before RL."""
  options, before_rl = Options(), subject.before_rl is not None
  return min(subject.n, subject.settings.items) * (options.positions + options.samples + before_rl)


def _by_provider(
  subject: Subject, client: Asks, contexts: list[Context]
) -> tuple[list[Score], list[Gate]]:
  """Precision of the claims that a language model finds, judged by it; what the parser finds stands beside it."""
  texts = subject.sampled.texts
  try:
    claims, failed = claims_by(client, texts, [one.text for one in contexts])
  except NLAError as error:
    # What is offline must not be lost with it; what was answered is kept and not paid for again.
    return [], [Gate("claims by provider", False, str(error))]
  found = verdicts(texts, contexts, claims)
  spoken = sum(bool(text) for text in texts)
  gate = Gate("claims by provider", failed <= 0.1 * spoken, f"{failed} of {spoken} answers failed")
  if not found.claims:
    return [], [gate]

  fixed = {"samples": subject.settings.bootstrap_samples, "seed": subject.seed}
  return precision_scores("by provider", found, None, subject.groups, **fixed), [gate]


def _drawn(subject: Subject) -> tuple[Options, evidence.Drawn]:
  """Other explanations of each row; only its own where there is no base model to read the tokens before with."""
  options = Options(seed=subject.seed, batch=subject.batch, on_explained=subject.on_explained)
  reads = _reads(subject, subject.sampled.texts)

  try:
    return options, evidence.draw(subject.nla, reads, options)
  except NLAError as error:
    say(f"eval: recurrence is left out: {error}")

  options = options._replace(positions=0)
  return options, evidence.draw(subject.nla, reads, options)


def _gathered(
  subject: Subject, texts: list[str | None], drawn: evidence.Drawn, options: Options
) -> list[evidence.Evidence]:
  reads = _reads(subject, texts)
  return evidence.gather(subject.nla, reads, drawn, subject.baseline, options)


def _reads(subject: Subject, texts: list[str | None]) -> list[Read]:
  rows = zip(subject.documents, subject.positions.tolist(), subject.activations, texts)
  return [Read(one.tokens, at, vector, text) for one, at, vector, text in rows]


def _gates(scores: list[Score]) -> list[Gate]:
  cells = {(one.row, one.column): one for one in scores}
  gates = []
  if (one := cells.get(("teacher", "precision, all"))) is not None:
    detail = f"{one.value:.2f} of its claims are true"
    gates.append(Gate("the teacher's claims are true", one.value >= _SKYLINE, detail))

  # Another row's explanation is judged by luck alone.
  one = cells.get(("shuffled", "precision, all"))
  if one is not None and one.chance is not None:
    error = (one.ci95[1] - one.ci95[0]) / 4 if one.ci95 else 0.0
    detail = f"{one.value:.2f} true, {one.chance:.2f} by luck"
    gates.append(Gate("shuffled is at chance", one.value <= one.chance + 2 * error, detail))
  return gates


def _verdict(scores: list[Score]) -> str:
  """The sentence on what is true."""
  cells = [
    one for one in scores if one.row == "explanation" and one.column.startswith("precision, ")
  ]
  whole, *parts = cells
  luck = "" if whole.chance is None else f" ({whole.chance:.0%} by luck)"
  begin = f"{whole.value:.0%} of the claims are true{luck}"
  if not parts:
    return f"{begin}."

  # Of fields and levels together; each is a column of the table.
  best, worst = max(parts, key=_value), min(parts, key=_value)
  names = [one.column.removeprefix("precision, ") for one in (best, worst)]
  return f"{begin}, most of {names[0]} ({best.value:.0%}), least of {names[1]} ({worst.value:.0%})."


def _value(one: Score) -> float:
  return one.value


def _examples(
  subject: Subject, found: Verdicts, known: trust.Trust, contexts: list[Context]
) -> list[dict]:
  """Claims with what was said of them."""
  examples = []
  for i, (row, claim) in enumerate(zip(found.row.tolist(), found.claims)):
    if row >= _EXAMPLES:
      break

    one = {"explanation": subject.sampled.texts[row], "claim": claim.text, "field": claim.field}
    one |= {"level": claim.level, "true": claim.verdict, "related": claim.related}
    one["context ends"] = contexts[row].text[-80:]
    if known.probabilities is not None:
      one["confidence"] = round(float(known.probabilities[i]), 3)
    examples.append(one)
  return examples


SUITE = Suite(run, explanations)
