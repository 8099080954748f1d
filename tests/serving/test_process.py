"""The server as a process: its port, its secret, and what SIGTERM does."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support.serving import frames, posted, until

from nla_jax.cli import main, serve
from nla_jax.errors import NLAError
from nla_jax.serving import run

TESTS = Path(__file__).parents[1]
# A server whose answers wait for a line on its standard input.
HELD = """
import sys, threading
from support.known_reader import KnownReader
from nla_jax.serving import run
from nla_jax.serving.limits import Limits
from nla_jax.serving.server import application
from nla_jax.serving.service import Service

service = Service(KnownReader(), Limits())
service.reader.gate.clear()
threading.Thread(target=lambda: (sys.stdin.readline(), service.reader.gate.set()), daemon=True).start()
taken = run.listen("127.0.0.1", 0, None)
run.run(application(service), taken, 60, lambda: print(taken.getsockname()[1], flush=True))
print("closed", service.close(20), flush=True)
"""


@pytest.fixture
def held():
  code = f"import sys; sys.path[:0] = {[str(TESTS), *sys.path]!r}\n{HELD}"
  command = [sys.executable, "-P", "-c", code]
  process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  yield process
  process.kill()
  process.communicate()


def in_progress(port: int) -> int:
  with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
    return json.load(response)["in_progress"]


def test_sigterm_finishes_what_runs_and_lets_nobody_in(held):
  port = int(held.stdout.readline())
  stream = posted(port, "/describe", {"activations": [[1.0] * 8], "stream": True})
  first = stream.read1().decode()
  other = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
  body = '{"activations": [[0, 1, 0, 0, 0, 0, 0, 0]], "temperature": 0}'
  other.request("POST", "/describe", body, {"Content-Type": "application/json"})
  until(lambda: in_progress(port) == 2)

  held.send_signal(signal.SIGTERM)
  with pytest.raises(OSError):
    for _ in range(1000):
      socket.create_connection(("127.0.0.1", port), timeout=5).close()
      time.sleep(0.02)  # a thousand connections may be over before the signal is handled

  held.stdin.write("\n")
  held.stdin.flush()
  *_, result, end = frames(first + stream.read().decode())
  assert end == "[DONE]" and "description" in result
  assert b"unit 1" in other.getresponse().read()
  assert held.wait(30) == 0
  assert held.stdout.read() == "closed True\n"


def test_two_servers_on_one_port(capsys, monkeypatch):
  monkeypatch.setattr(serve, "load", lambda *args, **kwargs: pytest.fail("it loaded first"))
  with run.listen("127.0.0.1", 0, None) as taken:
    port = taken.getsockname()[1]
    assert main.main(["serve", "--nla=x", f"--port={port}"]) == 2
  said = capsys.readouterr().err
  assert f"127.0.0.1:{port} cannot be taken (Address already in use)" in said
  assert said.count("\n") == 1
  # And free again when the first one is gone.
  run.listen("127.0.0.1", port, None).close()


@pytest.mark.parametrize(
  "arguments, words",
  [
    (["--host=0.0.0.0"], "lets other machines in: give a secret"),
    (["--host=::"], "lets other machines in"),
    (["--host=example.invalid"], "lets other machines in"),
    (["--port=70000"], "expected 0 (a free one) to 65535"),
    (["--port=-1"], "expected 0 (a free one) to 65535"),
    (["--port=web"], "invalid int value"),
    (["--max-concurrent=0"], "concurrent=0: a limit of the server has to be more than 0"),
    (["--secret-file=/nowhere/secret"], "cannot be read (No such file or directory)"),
  ],
)
def test_a_wrong_flag_is_said_before_anything_is_loaded(capsys, monkeypatch, arguments, words):
  monkeypatch.delenv(run.SECRET, raising=False)
  monkeypatch.setattr(serve, "load", lambda *args, **kwargs: pytest.fail("it loaded first"))
  assert main.main(["serve", "--nla=x", *arguments]) == 2
  said = capsys.readouterr().err
  assert words in said and said.count("\n") == 1


def test_another_address_needs_a_secret_and_takes_one(tmp_path, monkeypatch):
  monkeypatch.delenv(run.SECRET, raising=False)
  assert run.secret_of(None) is None
  (tmp_path / "secret").write_text("0123456789\n")
  assert run.secret_of(str(tmp_path / "secret")) == "0123456789"
  run.listen("0.0.0.0", 0, "0123456789").close()

  monkeypatch.setenv(run.SECRET, "from the environment")
  assert run.secret_of(None) == "from the environment"
  assert run.secret_of(str(tmp_path / "secret")) == "0123456789"


@pytest.mark.parametrize(
  "content", [b"", b"short\n", b"two lines\nof it all", b"caf\xc3\xa9 au lait"]
)
def test_what_is_no_secret_is_refused(tmp_path, content):
  (tmp_path / "secret").write_bytes(content)
  with pytest.raises(NLAError, match="secret"):
    run.secret_of(str(tmp_path / "secret"))


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setattr(serve, "_PARTS", ("starlette", "no_such_part"))
  assert main.main(["serve", "--nla=x"]) == 2
  assert "needs no_such_part: pip install 'nla_jax[serve]'" in capsys.readouterr().err


def test_a_pair_is_named_to_clients_without_where_it_lies(tmp_path):
  (tmp_path / "first_run" / "hf").mkdir(parents=True)
  assert serve._name(str(tmp_path / "first_run")) == "first_run"
  assert serve._name(str(tmp_path / "first_run" / "hf")) == "first_run"
  assert serve._name("org/nla-model-av") == "org/nla-model-av"
