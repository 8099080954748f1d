"""Every mistake gets one line that says what, where and what to do, a status of 2, and costs nothing expensive."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nla_jax.cli.main import main

ROOT = Path(__file__).parent.parent
TINY = f"--config={ROOT / 'configs' / 'tiny.py'}"


def complaint(capsys, *arguments: str) -> str:
  """The one line that `nla` prints for these arguments."""
  assert main(list(arguments)) == 2
  printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nla: ")]
  assert len(printed) == 1 and "Traceback" not in printed[0]
  return printed[0]


@pytest.mark.parametrize(
  "override, expected",
  [
    ("--config.layer=9", "blocks 0..3"),
    ("--config.corpus=/nowhere.txt", "does not exist"),
    ("--config.corpus=notes.docx", "no known kind"),
    ("--config.model=/nowhere/model.gguf", "/nowhere/model.gguf"),
    ("--config.model=package:no_such_package_here", "not installed"),
    ("--config.prompts.marker=ab", "must be exactly one"),
    ("--config.prompts.av=no slot here", "exactly once"),
    ("--config.compute=float8", "float32, bfloat16 or auto"),
    ("--config.inject.mode=somewhere", "replace, add"),
    ("--config.kernel=maybe", "auto, on, off"),
    ("--config.rl.group=1", "at least 2"),
    ("--config.rl.temperature=0.0", "more than 0"),
    ("--config.rl.minibatches=3", "does not divide"),
    ("--config.rl.extremes=3", "expected an even number up to config.rl.group="),
    ("--config.rl.reward=luck", "mse, cosine, log"),
    ("--config.rl.max_new_tokens=20", "cannot hold the teacher's explanations"),
    ("--config.rl.max_new_tokens=2040", "the 2048 positions"),
    ("--config.data.max_tokens=4096", "2048 positions"),
    ("--config.av.accumulate=3", "does not divide config.av.batch=16"),
    ("--config.rl.ar.accumulate=0", "at least 1"),
    ("--config.rl.av.accumulate=5", "does not divide the 16 explanations"),
    ("--config.rl.epochs=0", "at least 1"),
    ("--config.rl.loss=a3c", "ppo, cispo"),
    ("--config.rl.ar_texts=some", "all, best"),
    ("--config.rl.kl_taper=-1.0", "0 for none"),
    ("--config.rl.keep=best", "set config.rl.watch_every"),
    ("--config.rl.keep_by=luck", "fve_fixed, fve_held_out"),
    ("--config.lora.rank=-1", "0 trains every weight"),
    ("--config.lora.rank=33", "key of random:tiny is only 32 wide"),
    ("--config.teacher.provider=oracle", "readout or file"),
    ("--config.preset=gigantic", "not one of"),
    ("--config.no_such_key=1", "nla_jax/config.py lists all keys"),
    ("--config.rl.no_such_key=1", "nla_jax/config.py lists all keys"),
    ("--config.layer=twelve", "nla_jax/config.py lists all keys"),
  ],
)
def test_a_wrong_choice_is_named_before_any_work(override, expected, capsys, tmp_path):
  assert expected in complaint(capsys, "run", TINY, f"--workdir={tmp_path}", override)
  assert not (tmp_path / "activations" / "manifest.json").exists()


@pytest.mark.parametrize(
  "overrides, expected",
  [
    ({"alpha": 0.0}, "config.lora.alpha=0: expected more than 0"),
    ({"alpha": -1.0}, "config.lora.alpha=-1: expected more than 0"),
    ({"targets": "()"}, "none is named; expected some of query, key"),
    ({"targets": "('query', 'q_proj')"}, "no block has 'q_proj'; expected some of query, key"),
  ],
)
def test_adapters_that_cannot_be_made_are_named_before_any_work(
  overrides, expected, capsys, tmp_path
):
  options = [f"--config.lora.{name}={value}" for name, value in overrides.items()]
  said = complaint(capsys, "run", TINY, f"--workdir={tmp_path}", "--config.lora.rank=4", *options)
  assert expected in said
  assert not (tmp_path / "activations" / "manifest.json").exists()


@pytest.mark.parametrize(
  "arguments, expected",
  [
    (["run"], "give one stage"),
    (["run", TINY], "--workdir"),
    (["fly", TINY, "--workdir=new"], "no stage"),
    (
      ["run", "--config=/nowhere.py", "--workdir=new"],
      "the config file /nowhere.py does not exist",
    ),
    (["eval", TINY, "--workdir=new"], "`nla sft`"),
  ],
)
def test_a_wrong_command_says_what_is_missing(arguments, expected, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert expected in complaint(capsys, *arguments)


def test_a_corpus_without_a_long_enough_document_says_how_long_the_longest_is(capsys, tmp_path):
  corpus = tmp_path / "short.txt"
  corpus.write_text("One.\n\nTwo.\n")
  said = complaint(
    capsys, "extract", TINY, f"--workdir={tmp_path / 'run'}", f"--config.corpus={corpus}"
  )
  assert "the longest has 4" in said and "position_minimum" in said


def test_a_truncated_model_file_is_named(capsys, tmp_path):
  model = tmp_path / "cut.gguf"
  model.write_bytes(b"GGUF\x03\x00\x00\x00")
  assert str(model) in complaint(
    capsys, "extract", TINY, f"--workdir={tmp_path / 'run'}", f"--config.model={model}"
  )


def test_a_damaged_shard_is_named_and_the_rest_is_kept(capsys, tmp_path):
  assert main(["extract", TINY, f"--workdir={tmp_path}"]) == 0
  shard = sorted(
    path
    for path in (tmp_path / "activations" / "store" / "next_tokens").rglob("*")
    if path.is_file() and path.name != "zarr.json"
  )[0]
  content = bytearray(shard.read_bytes())
  content[len(content) // 3] ^= 0xFF
  shard.write_bytes(bytes(content))
  capsys.readouterr()
  said = complaint(capsys, "teach", TINY, f"--workdir={tmp_path}")
  assert "next_tokens" in said and "shard" in said


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path):
  """A file size limit stands in for the disk: the kernel refuses the write in the same call."""

  def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

  arguments = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    "from nla_jax.cli.main import main; sys.exit(main(sys.argv[1:]))",
    "extract",
    TINY,
    f"--workdir={tmp_path}",
  ]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  full = subprocess.run(
    arguments, env=env, preexec_fn=limit, capture_output=True, text=True, timeout=300
  )
  assert full.returncode == 2 and full.stderr.splitlines()[-1].startswith("nla: "), full.stderr[
    -2000:
  ]
  again = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=300)
  assert again.returncode == 0, again.stderr[-2000:]
