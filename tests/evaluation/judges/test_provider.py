"""A judge by provider: asked over HTTP on loopback, kept on disk, never paid twice, and named when it fails."""

import numpy as np
import pytest
from support.model_server import serving

from nla_jax.errors import NLAError
from nla_jax.evaluation.judges.judge import LABEL, Question
from nla_jax.evaluation.judges.language_model import LanguageModelJudge
from nla_jax.evaluation.judges.provider import Client, Provider, read_provider

WORDS = "three words here"


@pytest.fixture
def served(monkeypatch, tmp_path):
  """A server, and a function that makes a provider that asks it."""
  pytest.importorskip("openai", reason="no client of OpenAI: pip install 'nla_jax[api]'")
  monkeypatch.setenv("OPENAI_API_KEY", "right")
  with serving() as (server, url):
    given = {"model": "m", "url": f"{url}/v1", "folder": str(tmp_path / "answers"), "ceiling": 1e6}
    yield server, lambda **fields: Provider(**{**given, "price": [1e6, 1e6], **fields})


def test_an_answer_is_paid_once_and_kept_with_its_price(served):
  server, to = served
  client = Client(to())
  first, _, third = client.ask([WORDS, "two", WORDS])
  assert first == third and "<explanation>" in first and len(server.answered) == 2
  assert client.spent == pytest.approx(server.input_tokens + server.output_tokens)

  # Another evaluation: nothing is asked, and what was paid is known.
  again = Client(to())
  assert again.ask(["two", WORDS])[1] == first and len(server.answered) == 2
  assert again.spent == pytest.approx(client.spent)


def test_a_ceiling_stops_before_it_is_passed_and_what_was_answered_is_kept(served):
  server, to = served
  Client(to()).ask([WORDS])
  with pytest.raises(
    NLAError, match=r"the ceiling of .* is reached.*`ceiling` in the judge's file"
  ):
    Client(to(ceiling=30.0)).ask([WORDS, "another"])
  assert len(server.answered) == 1 and Client(to(ceiling=30.0)).ask([WORDS])


def test_a_request_without_an_answer_is_no_verdict(served, monkeypatch):
  server, to = served
  monkeypatch.setattr("nla_jax.providers.vendor.TRIES", 0)
  server.broken = "another"
  with pytest.raises(NLAError, match="did not answer 1 of 2 requests"):
    Client(to()).ask([WORDS, "another"])
  server.broken = ""
  assert all(Client(to()).ask([WORDS, "another"])) and len(server.answered) == 2


def test_a_key_that_is_missing_is_said_before_anything_is_asked(served, monkeypatch):
  monkeypatch.delenv("OPENAI_API_KEY")
  with pytest.raises(NLAError, match="OPENAI_API_KEY is not set"):
    Client(served[1](url=""))


class Recorded:
  """Answers by what a prompt holds."""

  def __init__(self, answers):
    self.answers, self.prompts = answers, []

  def ask(self, prompts):
    self.prompts += prompts
    return [next(a for part, a in self.answers.items() if part in p) for p in prompts]


def test_a_letter_is_a_choice_and_anything_else_is_wrong():
  client = Recorded(
    {
      "river": "I think B. <answer> b. </answer>",
      "town": "<answer>Z</answer>",
      "hill": "C",
      "{options}": "<answer>A</answer>",
    }
  )
  judge = LanguageModelJudge(client, "judge-1")
  options = ("flows", "stands", "sings")
  questions = [Question(one, options) for one in ("river", "town", "hill", "{options}", "")]
  found = judge.scores(questions)
  assert found[0].tolist() == [0, 1, 0] and found[3].tolist() == [1, 0, 0]
  assert np.isnan(found[1]).all() and np.isnan(found[2]).all()
  assert not found[4].any() and len(client.prompts) == 4
  assert "A. flows\nB. stands\nC. sings" in client.prompts[0]
  # Braces of a text stay what they are.
  assert "{options}\n</description>" in client.prompts[3]
  judge.label("river", options)
  assert "is true of the text" in client.prompts[-1] and LABEL.before not in client.prompts[-1]


@pytest.mark.parametrize(
  "answer, verdict, evidence",
  [
    ('<answer>{"verdict": "Yes", "evidence": "a river"}</answer>', "yes", "a river"),
    ('<answer>{"verdict": "yes", "evidence": "an ocean"}</answer>', "unclear", ""),
    ('{"verdict": "no"}', "no", ""),
    ('{"verdict": "perhaps"}', "unclear", ""),
    ("yes", "unclear", ""),
    ("[1]", "unclear", ""),
  ],
)
def test_a_verdict_needs_evidence_that_is_there(answer, verdict, evidence):
  judge = LanguageModelJudge(Recorded({"Is it so?": answer}), "judge-1")
  found = judge.grade("Is it so?", {"text": "It names a river."})
  assert (found.verdict, found.evidence) == (verdict, evidence)


@pytest.mark.parametrize(
  "text, message",
  [
    ("url: http://x\nmodel: m", "ceiling, folder missing"),
    ("[", "no YAML"),
    ("ALL\nkey: x", "key unknown"),
    ("ALL\nparallel: soon", "parallel is 'soon', and a int is expected"),
    ("ALL\nparallel: true", "parallel is True"),
    ("ALL\nprice: 3", "price is 3"),
    ("ALL\nceiling: -1", "above 0"),
  ],
)
def test_a_file_that_describes_no_provider_is_refused(tmp_path, text, message):
  whole = "url: http://x\nmodel: m\nprice: [1, 2.5]\nceiling: 3\nfolder: answers"
  file = tmp_path / "judge.yaml"
  file.write_text(text.replace("ALL", whole))
  with pytest.raises(NLAError, match=message):
    read_provider(file)
  file.write_text(whole)
  assert read_provider(file).price == [1, 2.5]
