"""A workdir has one run at a time; a claim ends with its process, on this host and as seen from another."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nla_jax.errors import NLAError
from nla_jax.run import claim
from nla_jax.workdir import OWNER

HOLD = """
import sys, time
from pathlib import Path
from nla_jax.run.claim import claimed
with claimed(Path(sys.argv[1])):
  print("held", flush=True)
  time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
  """A process that holds `tmp_path`."""
  words = [sys.executable, "-P", "-c", HOLD, str(tmp_path)]
  process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.wait()


def test_a_second_run_is_refused_and_told_who_the_first_is(holder, tmp_path):
  said = f"process {holder.pid} on .* is at work in {tmp_path}"
  with pytest.raises(NLAError, match=said), claim.claimed(tmp_path):
    pass
  assert holder.poll() is None


def test_a_claim_dies_with_its_process_however_it_ended(holder, tmp_path):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  with claim.claimed(tmp_path):
    assert json.loads((tmp_path / OWNER).read_text())["process"] == os.getpid()
  assert not (tmp_path / OWNER).exists()
  # And one that ended by an error of its own is given back.
  with pytest.raises(ZeroDivisionError), claim.claimed(tmp_path):
    raise ZeroDivisionError
  with claim.claimed(tmp_path):
    pass


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
  """A function that writes what a run on another host says of itself; its lock is not seen here."""
  monkeypatch.setattr(claim, "BEAT_SECONDS", 0.05)

  def say(beat: int) -> None:
    one = claim.Owner("far-away", 17, "2026-01-01 00:00:00", beat)
    (tmp_path / "new").write_text(json.dumps(one.__dict__))
    os.replace(tmp_path / "new", tmp_path / OWNER)

  return say


def test_a_run_that_lives_on_another_host_is_seen_by_what_it_says(elsewhere, tmp_path):
  done = threading.Event()

  def live():
    beat = 0
    while not done.wait(0.02):
      elsewhere(beat := beat + 1)

  elsewhere(0)
  thread = threading.Thread(target=live)
  thread.start()
  try:
    said = "process 17 on far-away, which began at 2026-01-01"
    with pytest.raises(NLAError, match=said), claim.claimed(tmp_path):
      pass
  finally:
    done.set()
    thread.join()


def test_a_run_that_died_on_another_host_is_followed_after_a_while(elsewhere, tmp_path, capsys):
  elsewhere(41)
  with claim.claimed(tmp_path):
    first = json.loads((tmp_path / OWNER).read_text())
    time.sleep(0.3)  # several beats
    assert json.loads((tmp_path / OWNER).read_text())["beat"] > first["beat"]
  assert "watching for" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b'{"host": "x', b"[]", b'{"who": 1}', b"\xff\xfe"])
def test_an_owner_that_cannot_be_read_holds_nothing(tmp_path, content):
  (tmp_path / OWNER).write_bytes(content)
  with claim.claimed(tmp_path):
    pass
