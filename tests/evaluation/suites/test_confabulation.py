"""Claims of a pair that knows something can be trusted by their evidence; those of a liar cannot."""

import dataclasses
import json

import numpy as np
import pytest
from support.claiming_pair import INVENTED, claiming_subject

from nla_jax.errors import NLAError
from nla_jax.evaluation import variants
from nla_jax.evaluation.claims import confidence, trust
from nla_jax.evaluation.claims.precision import verdicts
from nla_jax.evaluation.claims.verdict import contexts_of
from nla_jax.evaluation.findings import to_json
from nla_jax.evaluation.suites import confabulation


def measured(subject):
  return confabulation.run(subject).findings["confabulation"]


@pytest.fixture(scope="module")
def findings():
  return {liar: measured(claiming_subject(liar)) for liar in (False, True)}


def cell(finding, row, column):
  (found,) = [one for one in finding.scores if (one.row, one.column) == (row, column)]
  return found


def model_of(finding):
  metrics = {"suites": {"confabulation": to_json(finding)}}
  return confidence.from_json(confidence.in_metrics(metrics))


def test_precision_stands_beside_luck_the_teacher_and_another_rows_claims(findings):
  honest = findings[False]
  own = cell(honest, "explanation", "precision, About")
  # Of six claims four are known, and two are any word, of which the document has some.
  assert own.value == pytest.approx((4 + 2 * INVENTED) / 6, abs=0.05)
  assert cell(honest, "teacher", "precision, all").value == 1
  shuffled = cell(honest, "shuffled", "precision, all")
  assert shuffled.value == pytest.approx(own.chance, abs=0.05) and own.chance < 0.5
  assert cell(honest, "explanation", "claims an explanation").value == pytest.approx(6)
  assert all(gate.passed for gate in honest.gates[:2])


def test_a_confidence_tells_what_is_known_from_what_is_invented(findings):
  honest = findings[False]
  assert cell(honest, "confidence", "AUC").ci95[0] > 0.75
  assert cell(honest, "confidence", "ECE").value < 0.05
  assert "tells true claims from false ones" in honest.verdict
  assert (
    cell(honest, "true claims", "recurrence").ci95[0]
    > cell(honest, "false and unrelated", "recurrence").ci95[1]
  )
  # The log-probabilities of this pair know nothing.
  assert cell(honest, "log-probability only", "AUC").value < 0.6
  assert cell(honest, "log-probability only", "AUC that confidence adds").ci95[0] > 0.1


def test_a_planted_liar_has_confidence_at_chance(findings):
  liar = findings[True]
  own = cell(liar, "explanation", "precision, all")
  low, high = own.ci95
  assert low - 0.03 <= own.chance <= high + 0.03
  # It repeats itself as steadily as the honest one, and that earns it nothing.
  assert cell(liar, "false and unrelated", "recurrence").value > 0.5
  said = [one["confidence"] for one in liar.examples if "confidence" in one]
  assert np.mean(said) == pytest.approx(own.chance, abs=0.1)
  assert cell(liar, "confidence", "ECE").value < 0.1


def test_another_rows_claims_planted_at_a_row_are_not_believed(findings):
  honest = findings[False]
  planted = cell(honest, "planted liar", "mean confidence")
  assert planted.value <= planted.chance + 0.05 < 0.5
  said = [one["confidence"] for one in honest.examples if "confidence" in one]
  assert np.mean(said) > 0.6
  (gate,) = [gate for gate in honest.gates if "planted liar" in gate.name]
  assert gate.passed


def test_another_pairs_steady_liar_is_trusted_less_than_the_honest_one_and_still_too_much(findings):
  # Why a confidence is of the pair that it was fitted on.
  model, trusted = model_of(findings[False]), {}
  for liar in (False, True):
    subject = claiming_subject(liar, preset="quick")
    few = variants.first_rows(subject, 50)
    options, drawn = confabulation._drawn(few)
    gathered = confabulation._gathered(few, few.sampled.texts, drawn, options)
    trusted[liar] = np.mean([model.probability(e.claims, e.values).mean() for e in gathered])
  true = cell(findings[True], "explanation", "precision, all").value
  assert true + 0.1 < trusted[True] < trusted[False] - 0.1


def test_a_confidence_that_believes_a_planted_liar_fails_its_gate():
  # A model that trusts everything.
  one = confidence.fit(np.zeros((4, 1)), np.ones(4), ["field=About"])
  subject = claiming_subject(False, preset="quick")
  few = variants.first_rows(subject, 50)
  texts = [few.sampled.texts[i] for i in few.other_rows]
  options, drawn = confabulation._drawn(few)
  liar = verdicts(texts, contexts_of(few)), confabulation._gathered(few, texts, drawn, options)
  _, gate = trust.planted_liar(one, *liar, few.groups, samples=50, seed=0)
  assert not gate.passed


def test_deletion_of_what_is_true_costs_more_than_of_what_is_not(findings):
  column = "FVE lost beyond random words"
  true, false = (
    cell(findings[False], row, column) for row in ("true claims", "false and unrelated")
  )
  assert true.ci95[0] > false.ci95[1]
  assert cell(findings[False], "true claims", "SD over random deletions").value > 0


def test_the_fitted_model_is_kept_and_says_how_it_was_made(findings):
  model = model_of(findings[False])
  assert model.options == {"positions": 10, "samples": 8, "resamples": 3}
  assert model.measured["auc"] > 0.75 and model.measured["claims"] == 720


def test_without_a_base_model_recurrence_is_left_out_with_a_line(capsys):
  subject = claiming_subject(False)

  def nothing(texts, positions):
    raise NLAError("no base model to read with")

  subject.nla.activations = nothing
  found = measured(subject)
  assert "recurrence is left out: no base model" in capsys.readouterr().err
  assert not [one for one in found.scores if one.column == "recurrence"]
  assert model_of(found).options["positions"] == 0
  assert cell(found, "confidence", "AUC").value > 0.75


def test_the_preset_sets_how_many_rows_are_looked_at(findings):
  subject = claiming_subject(False, preset="quick")
  found = measured(subject)
  assert cell(found, "explanation", "precision, all").n == 50 * 6
  assert confabulation.explanations(subject) == 50 * 18


def test_the_av_before_rl_is_a_row_of_its_own():
  subject = claiming_subject(False, preset="quick")
  liar = claiming_subject(True).nla
  found = measured(dataclasses.replace(subject, before_rl=liar))
  before, now = (cell(found, row, "precision, all") for row in ("before_rl", "explanation"))
  assert before.ci95[1] < 0.5 < now.ci95[0]


def test_texts_without_claims_leave_the_suite_out():
  subject = claiming_subject(False)
  subject.sampled.texts[:] = ["it is calm"] * subject.n
  with pytest.raises(NLAError, match="hold no claims"):
    measured(subject)


def test_claims_by_provider_are_a_row_of_their_own():
  subject = claiming_subject(False)

  class Recorded:
    def ask(self, prompts):
      row = {"text": "About", "level": "theme", "verdict": True}
      return [json.dumps([row])] * (len(prompts) - 20) + ["no list"] * 20

  contexts = contexts_of(subject)
  scores, (gate,) = confabulation._by_provider(subject, Recorded(), contexts)
  cells = {one.column: one for one in scores}
  assert (cells["precision, all"].value, cells["precision, all"].n) == (1, 100)
  assert not gate.passed and "20 of 120" in gate.detail

  class Silent:
    def ask(self, prompts):
      raise NLAError("needs a key")

  scores, (gate,) = confabulation._by_provider(subject, Silent(), contexts)
  assert scores == [] and gate == ("claims by provider", False, "needs a key")
