"""A push shows a checkpoint only when it is whole; its card says what was measured and nothing else."""

import dataclasses
import fnmatch
from pathlib import Path

import numpy as np
import pytest
import yaml

from nla_jax.autoencoder import prompts
from nla_jax.cli.main import main
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.interop.pairs import model_card, push, sidecar
from nla_jax.interop.pairs.write import write_ar, write_av

K = 2
METRICS = {
  "fve": {
    "round_trip": {"value": 0.4321, "ci95": [0.41, 0.45], "n": 500},
    "teacher_text": {"value": 0.35, "ci95": [0.3, 0.4], "n": 500},
  },
  "controls": {"shuffled_vector": {"value": -0.1234, "ci95": [-0.2, -0.05], "n": 500}},
  "baseline_variance": 0.4541,
  "parse_rate": 0.998,
  "tokens_mean": 41.3,
  "av": {"loss_own": 1.5, "loss_shuffled": 1.9},
}


@pytest.fixture
def pair(tmp_path):
  """A folder with av/ and ar/ of random:tiny."""
  folder, base, lower = (
    tmp_path / "pair",
    random_model("random:tiny"),
    random_model("random:tiny", K),
  )
  live = prompts.make_prompts(base.tokenizer)
  side = sidecar.ModelSidecar(
    role="av",
    stage="rl",
    base_checkpoint="somebody/model",
    d_model=64,
    injection_scale=12.5,
    mse_scale=8.0,
    tokens=sidecar.tokens_of(live),
    av_template=live.av_template,
    ar_template=live.ar_template,
    layer_index=K,
    trained_on=("wikipedia-sample",),
  )
  write_av(folder / "av", base.architecture, base.params, base.tokenizer, side)
  write_ar(
    folder / "ar",
    lower.architecture,
    lower.params,
    np.eye(64, dtype=np.float32),
    base.tokenizer,
    dataclasses.replace(side, role="ar"),
  )
  return folder


class Hub:
  """Keeps repositories in memory and can break off; its methods take what `HfApi`'s of the same name take."""

  def __init__(self, calls_until_break: int | None = None):
    self.repositories: dict[str, set[str]] = {}
    self.states: list[set[str]] = []  # files of the repository after each commit
    self.left = calls_until_break
    self.private = None

  def create_repo(self, repo_id, *, private=None, exist_ok=False):
    assert exist_ok
    self.private = private
    self.repositories.setdefault(repo_id, {".gitattributes", "extra.md"})

  def file_exists(self, repo_id, filename):
    return filename in self.repositories[repo_id]

  def delete_file(self, path_in_repo, repo_id, *, commit_message):
    self._commit(repo_id, self.repositories[repo_id] - {path_in_repo})

  def upload_folder(self, *, repo_id, folder_path, allow_patterns, delete_patterns, commit_message):
    match = lambda name, patterns: any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    kept = {name for name in self.repositories[repo_id] if not match(name, delete_patterns)}
    self._commit(
      repo_id,
      kept
      | {file.name for file in Path(folder_path).iterdir() if match(file.name, allow_patterns)},
    )

  def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, commit_message):
    assert Path(path_or_fileobj).is_file()
    self._commit(repo_id, self.repositories[repo_id] | {path_in_repo})

  def _commit(self, repo_id, files):
    if self.left is not None:
      self.left -= 1
      if self.left < 0:
        raise ConnectionError("the line is dead")
    self.repositories[repo_id] = files
    self.states.append(files)


def test_weights_come_first_and_the_sidecar_last(pair):
  model_card.write_card(pair / "ar", METRICS)
  hub = Hub()
  assert push.push(pair / "ar", "me/nla-ar", api=hub, private=True) == ["me/nla-ar"]
  weights, rest, whole = hub.states
  assert (
    weights == {".gitattributes", "extra.md", "model.safetensors", "value_head.safetensors"}
    and hub.private
  )
  assert {"config.json", "tokenizer.json", "README.md"} <= rest and "nla_meta.yaml" not in rest
  assert (
    whole
    == rest | {"nla_meta.yaml"}
    == {".gitattributes", "extra.md"} | {f.name for f in (pair / "ar").iterdir()}
  )


def test_a_push_that_breaks_off_never_leaves_a_sidecar_and_goes_on(pair):
  whole = Hub()
  push.push(pair / "av", "me/x", api=whole)
  for calls in range(4):
    hub = Hub(calls)
    hub.repositories["me/x"] = {
      "nla_meta.yaml",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    }
    with pytest.raises(NLAError, match="was not wholly uploaded to me/x \\(the line is dead\\)"):
      push.push(pair / "av", "me/x", api=hub)
    assert all("nla_meta.yaml" not in files for files in hub.states)
    hub.left = None
    push.push(pair / "av", "me/x", api=hub)
    assert hub.repositories["me/x"] == whole.repositories["me/x"] - {".gitattributes", "extra.md"}


def test_a_folder_of_both_goes_to_two_repositories(pair):
  hub = Hub()
  assert push.push(pair, "me/nla", api=hub) == ["me/nla-av", "me/nla-ar"]
  assert {name for name, files in hub.repositories.items() if "nla_meta.yaml" in files} == {
    "me/nla-av",
    "me/nla-ar",
  }


def test_nothing_is_uploaded_of_what_is_not_whole(pair, tmp_path, capsys):
  hub = Hub()
  (pair / "ar" / "value_head.safetensors").unlink()
  with pytest.raises(NLAError, match=r"ar is not uploaded: value_head\.safetensors"):
    push.push(pair, "me/nla", api=hub)
  with pytest.raises(NLAError, match="is no repository; expected owner/name"):
    push.push(pair / "av", "nla", api=hub)
  assert hub.repositories == {}
  assert main(["push", str(tmp_path), "me/nla"]) == 2
  assert "is no AV or AR" in capsys.readouterr().err


def _front(text: str) -> dict:
  return yaml.safe_load(text.split("---\n")[1])


def test_the_card_holds_the_numbers_with_intervals_and_controls(pair):
  for role in ("av", "ar"):
    text = model_card.write_card(pair / role, METRICS).read_text()
    assert "| Round trip, sampled | 0.432 | 0.410 to 0.450 | 500 |" in text
    assert "| Shuffled vector | -0.123 | -0.200 to -0.050 | 500 |" in text
    assert "| Baseline variance | 0.454 |" in text and "| Parse rate | 99.8% |" in text
    assert (
      "output of block 2 (0-based), width 64" in text
      and "wikipedia-sample" in text
      and "somebody/model" in text
    )
    assert _front(text)["base_model"] == "somebody/model" and "license" not in _front(text)
    assert "name no licence" in text and "nla_jax.load(" in text
  assert prompts.AR_TEMPLATE in text and prompts.AV_TEMPLATE not in text


def test_a_card_without_an_evaluation_says_so(pair):
  text = model_card.write_card(pair / "av").read_text()
  assert "was not evaluated" in text and "FVE" not in text


@pytest.mark.parametrize(
  ("readme", "licence", "front"),
  [
    ("---\nlicense: apache-2.0\n---\nhello", "apache-2.0", {"license": "apache-2.0"}),
    (
      "---\nlicense: other\nlicense_name: Our Terms\n---\n",
      "Our Terms",
      {"license": "other", "license_name": "Our Terms"},
    ),
    ("no front matter", None, {}),
    ("---\n[broken\n---\n", None, {}),
  ],
)
def test_the_base_models_licence_is_carried_over(pair, tmp_path, readme, licence, front):
  base = tmp_path / "base"
  base.mkdir()
  (base / "README.md").write_text(readme)
  (base / "LICENSE").write_text("the terms")
  assert model_card.base_licence(str(base)) == licence
  side = dataclasses.replace(sidecar.read_model_sidecar(pair / "av"), base_checkpoint=str(base))
  sidecar.write_model_sidecar(pair / "av", side)
  found = _front(model_card.write_card(pair / "av").read_text())
  assert {key: value for key, value in found.items() if key.startswith("license")} == front
  assert (pair / "av" / "LICENSE").read_text() == "the terms" and "base_model" not in found


def test_the_licence_of_a_gguf_is_in_its_header(tmp_path):
  from gguf import GGUFWriter

  writer = GGUFWriter(tmp_path / "m.gguf", "llama")
  writer.add_license("gemma")
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  assert model_card.base_licence(str(tmp_path / "m.gguf")) == "gemma"
  assert model_card.base_licence("package:no_such_package") is None
