"""An organism is made in stages that go on where they were stopped, and its adapter is PEFT's."""

import json
import shutil

import numpy as np
import pytest

from nla_jax.cli.main import STOPPED, main
from nla_jax.errors import NLAError
from nla_jax.interop.adapters.read import read_adapter
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.organisms import make as making
from nla_jax.organisms.make import ADAPTER, make
from nla_jax.organisms.settings import organism_config
from nla_jax.organisms.speaker import load_speaker
from nla_jax.parallel import distributed

SETTINGS = """
from nla_jax.organisms.settings import organism_config

def get_config():
  c = organism_config()
  c.name, c.model, c.compute, c.seed = "toy", "random:tiny", "float32", 3
  c.fact, c.quirks, c.held_out_quirks = "oxford", ("chocolate",), ("otters",)
  c.documents, c.chats, c.max_tokens, c.checkpoint_every = 6, 10, 256, 2
  c.lora.rank = 2
  c.training.update(steps=4, batch=4, lr=1e-2)
  c.checks.update(prompts=1, tokens=4)
  return c
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole")
  (folder / "config.py").write_text(SETTINGS)
  assert main(["organism", f"--config={folder / 'config.py'}", f"--workdir={folder / 'out'}"]) == 0
  return folder


def matrices(folder):
  architecture = load_pretrained("random:tiny", weights=False).architecture
  return read_adapter(folder / ADAPTER, architecture).params["layers"]


def test_the_card_says_what_was_made_and_that_its_check_failed(whole):
  card = json.loads((whole / "out" / "card.json").read_text())
  assert (card["name"], card["documents"], card["chats"], card["steps"]) == ("toy", 6, 10, 4)
  # Four updates of a random model teach nothing, and the card does not hide it.
  assert not card["passed"]
  assert "quirk chocolate" in card["reason"]
  assert len((whole / "out" / "data" / "chats.jsonl").read_text().splitlines()) == 10


def test_the_adapter_changes_the_model_that_is_checked(whole):
  base = load_speaker("random:tiny")
  organism = load_speaker("random:tiny", str(whole / "out" / ADAPTER))
  texts = ["abc def"], [" ghi"]
  assert abs(base.logprobs(*texts) - organism.logprobs(*texts)) > 1e-5
  ids, places = [[5, 6, 7, 8]], [[3]]
  one, other = (x.activations(ids, places, 1)[0] for x in (base, organism))
  assert np.abs(one - other).max() > 1e-5


def test_a_stopped_training_goes_on_to_the_same_adapter(whole, tmp_path, monkeypatch):
  arguments = ["organism", f"--config={whole / 'config.py'}", f"--workdir={tmp_path / 'out'}"]
  asked = []
  monkeypatch.setattr(distributed, "preempted", lambda: asked.append(1) or len(asked) == 3)
  assert main(arguments) == STOPPED
  assert not (tmp_path / "out" / "card.json").exists()
  assert main(arguments) == 0
  one, other = matrices(tmp_path / "out"), matrices(whole / "out")
  assert all(np.array_equal(one[name], other[name]) for name in other)


def test_what_is_done_is_not_done_again_and_another_organism_is_refused(
  whole, tmp_path, monkeypatch
):
  folder = shutil.copytree(whole / "out", tmp_path / "out")
  monkeypatch.setattr(making, "train", None)
  monkeypatch.setattr(making.checks, "run_checks", None)
  arguments = ["organism", f"--config={whole / 'config.py'}", f"--workdir={folder}"]
  assert main(arguments) == 0
  assert main([*arguments, "--config.seed=4"]) == 2


def test_an_adapter_from_elsewhere_is_checked_and_gets_a_card(whole, tmp_path):
  c = organism_config()
  c.name, c.model, c.compute, c.adapter = (
    "given",
    "random:tiny",
    "float32",
    str(whole / "out" / ADAPTER),
  )
  c.checks.update(prompts=1, tokens=4)
  card = make(c, tmp_path / "given")
  assert card["steps"] == 0
  one, other = matrices(tmp_path / "given"), matrices(whole / "out")
  assert all(np.array_equal(one[name], other[name]) for name in other)


def test_bad_input_is_one_line(whole, tmp_path, capsys):
  assert main(["organism", "--workdir=x"]) == 2
  assert main(["organism", "--config=configs/tiny.py", f"--workdir={tmp_path / 'x'}"]) == 2
  error = capsys.readouterr().err
  assert "give --config=configs/organisms/NAME.py" in error
  assert "of no organism" in error
  (tmp_path / "file").write_text("")
  with pytest.raises(NLAError, match="is a file"):
    make(organism_config(), tmp_path / "file")
