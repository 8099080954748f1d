"""A judge by provider: asked over HTTP on loopback, kept on disk, never paid twice, and named when it fails."""

import http.server
import json
import threading

import numpy as np
import pytest

from nla_jax.errors import NLAError
from nla_jax.evaluation.judges import provider
from nla_jax.evaluation.judges.judge import LABEL, Question
from nla_jax.evaluation.judges.language_model import LanguageModelJudge
from nla_jax.evaluation.judges.provider import Client, Provider, read_provider

KEY = "sk-secret-7"


class Server(http.server.ThreadingHTTPServer):
  """Answers as it is told: `answer` of a prompt, or the statuses in `failures` first."""

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.asked, self.failures, self.answer = [], [], lambda prompt: "<answer>B</answer>"
    self.usage = {"prompt_tokens": 1000, "completion_tokens": 100}


class Handler(http.server.BaseHTTPRequestHandler):
  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    self.server.asked.append((self.path, self.headers["Authorization"], body))
    if self.server.failures:
      self.send_error(self.server.failures.pop(0), KEY)
      return
    content = self.server.answer(body["messages"][0]["content"])
    reply = {"choices": [{"message": {"content": content}}], "usage": self.server.usage}
    self.send_response(200)
    self.end_headers()
    self.wfile.write(json.dumps(reply).encode())

  def log_message(self, *arguments):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("NLA_JUDGE_KEY", KEY)
  monkeypatch.setenv("no_proxy", "*")
  monkeypatch.setattr(provider, "_WAIT", 0.001)
  with Server() as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def to(server, tmp_path):
  def to(**fields) -> Provider:
    given = {"price_in": 1.0, "price_out": 10.0, "ceiling": 1.0, **fields}
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return Provider(url=url, model="judge-1", folder=str(tmp_path / "answers"), **given)

  return to


def test_an_answer_is_paid_once_and_kept_with_its_price(server, to):
  client = Client(to())
  assert client.ask(["one?", "two?", "one?"]) == ["<answer>B</answer>"] * 3
  path, key, body = server.asked[0]
  assert (path, key) == ("/v1/chat/completions", f"Bearer {KEY}")
  assert body["temperature"] == 0 and body["model"] == "judge-1"
  assert len(server.asked) == 2 and client.spent == pytest.approx(2 * (1000 + 10 * 100) / 1e6)

  # Another evaluation, even without a key: nothing is asked, and what was paid is known.
  again = Client(to(key_variable="NOT_SET"))
  assert again.ask(["two?"]) == ["<answer>B</answer>"] and len(server.asked) == 2
  assert again.spent == pytest.approx(client.spent)
  with pytest.raises(NLAError, match="needs a key: set NOT_SET"):
    again.ask(["three?"])


def test_a_ceiling_stops_before_it_is_passed_and_what_was_answered_is_kept(server, to):
  server.usage = {"prompt_tokens": 0, "completion_tokens": 400}
  client = Client(to(ceiling=0.011, price_out=10.0))  # 0.004 an answer
  client.ask(["one?"])
  client.ask(["two?"])
  with pytest.raises(NLAError, match=r"has cost \$0.0080 and its ceiling is \$0.011: raise"):
    client.ask(["three?"])
  assert len(server.asked) == 2 and client.ask(["one?"])
  assert Client(to(ceiling=1.0)).ask(["three?"]) and len(server.asked) == 3


def test_a_busy_provider_is_asked_again_and_a_dead_one_named_without_the_key(server, to):
  server.failures = [503, 429]
  assert Client(to()).ask(["one?"]) and len(server.asked) == 3
  server.failures = [401]
  with pytest.raises(NLAError, match=r"judge-1 at http.* does not answer \(HTTP 401\)") as error:
    Client(to()).ask(["two?"])
  assert KEY not in str(error.value) and "\n" not in str(error.value) and len(server.asked) == 4
  assert Client(to()).ask(["one?", "two?"]) and len(server.asked) == 5


def test_another_form_of_answer_is_named(server, to):
  server.answer = lambda prompt: None
  assert Client(to()).ask(["one?"]) == [""]
  with pytest.raises(NLAError, match="another form than OpenAI's"):
    provider._read({"error": 1}, to(), 0.0)
  assert provider._read({"choices": [{"message": {"content": "x"}}]}, to(), 0.25) == ("x", 0.25)


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
    ("url: http://x\nmodel: m", "price_in, price_out, ceiling, folder missing"),
    ("[", "no YAML"),
    ("ALL\nkey: x", "key unknown"),
    ("ALL\ntimeout: soon", "timeout is 'soon', and a float is expected"),
    ("ALL\nceiling: -1", "0 or more"),
  ],
)
def test_a_file_that_describes_no_provider_is_refused(tmp_path, text, message):
  whole = "url: http://x\nmodel: m\nprice_in: 1\nprice_out: 2.5\nceiling: 3\nfolder: answers"
  file = tmp_path / "judge.yaml"
  file.write_text(text.replace("ALL", whole))
  with pytest.raises(NLAError, match=message):
    read_provider(file)
  file.write_text(whole)
  assert read_provider(file).price_out == 2.5
