"""NLAs as others write them, in every family and spelling, load here from a folder and from the hub's cache."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from safetensors import safe_open

import nla_jax
from nla_jax import evaluation
from nla_jax.cli.main import main
from nla_jax.data.store.documents import StoredDocument
from nla_jax.data.store.store import Store
from nla_jax.data.store.writer import StoreWriter
from nla_jax.errors import NLAError
from nla_jax.interop import describe
from nla_jax.interop.base_models import tensor_files
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs import model_card
from nla_jax.interop.pairs.directories import read_checkpoint
from nla_jax.interop.pairs.write import write_ar, write_av
from nla_jax.models.parameters import unembedding
from nla_jax.models.transformer import Transformer

MAJORS = ("4", "5")
FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text")
WORDS = ["the cat sat on the mat", "", "Über 123 <|im_end|> {braces}"]


@pytest.fixture(scope="module")
def pair(released):
  """A function (major version, family): (the pair as it is loaded, its folder)."""

  @functools.cache
  def load(major: str, family: str):
    folder = released(major)[0] / family
    return nla_jax.load(folder / "org-av", compute="float32"), folder

  return load


@pytest.fixture(scope="module")
def expected(released, read_there):
  """A function (major version, family): what that transformers makes of its own files."""

  @functools.cache
  def all_of(major: str):
    folder = released(major)[0]
    jobs = [
      {
        "av": folder / family / "org-av",
        "ar": folder / family / "org-ar",
        "texts": WORDS,
        "max_new_tokens": 40,
        "vectors": np.load(folder / family / "vectors.npy").tolist(),
      }
      for family in FAMILIES
    ]
    return dict(zip(FAMILIES, read_there(major, jobs)))

  return lambda major, family: all_of(major)[family]


@pytest.fixture
def copied(released, tmp_path):
  """A copy, to be changed, of the Llama pair: (its folder, function that changes a role's sidecar)."""
  folder = Path(shutil.copytree(released("5")[0] / "llama", tmp_path / "llama"))

  def edit(role: str, change) -> None:
    path = folder / f"org-{role}" / "nla_meta.yaml"
    meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(meta)
    path.write_text(yaml.safe_dump(meta, allow_unicode=True), encoding="utf-8")

  return folder, edit


def _tensors(folder):
  found = {}
  for path in [*tensor_files.weight_files(folder), *folder.glob("value_head.safetensors")]:
    with safe_open(path, "np") as file:
      found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
  return found


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_wrapped"])
@pytest.mark.parametrize("major", MAJORS)
def test_a_model_that_either_transformers_saved_has_its_logits(
  released, relative_error, major, family
):
  folder = released(major)[0] / family
  found, theirs = load_pretrained(str(folder / "base")), np.load(folder / "base.npz")
  assert found.architecture.n_layers == 4
  params = jax.device_put(found.params)
  output = Transformer(found.architecture).apply({"params": params}, theirs["ids"].astype(np.int32))
  assert relative_error(output.hidden @ unembedding(params).T, theirs["logits"]) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("major", MAJORS)
def test_a_released_pair_explains_and_reconstructs_as_torch_does(
  pair, expected, released, relative_error, major, family
):
  (nla, folder), there, said = pair(major, family), expected(major, family), released(major)[1]
  assert (nla.pair.layer, nla.pair.prompts.marker, nla.pair.verbalizer.scale) == (
    1,
    said["marker"],
    said["scale"],
  )
  vectors = np.load(folder / "vectors.npy")
  rollout = nla.pair.roll_out(
    nla.av_params, vectors, jax.random.key(0), np.arange(2, dtype=np.int32), greedy=True
  )
  for i, n in enumerate(np.asarray(rollout.lengths)):
    assert np.asarray(rollout.tokens)[i, :n].tolist() == there["tokens"][i]
  assert [one.text for one in nla.explain(vectors, greedy=True)] == said["texts"]
  assert relative_error(nla.reconstruct(WORDS), there["predictions"]) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("major", MAJORS)
def test_what_is_loaded_and_written_again_is_byte_identical(pair, tmp_path, major, family):
  folder = pair(major, family)[1]
  av, ar = read_checkpoint(folder / "org-av", "av"), read_checkpoint(folder / "org-ar", "ar")
  assert len(tensor_files.weight_files(folder / "org-av")) > 1
  write_av(tmp_path / "av", av.architecture, av.params, av.tokenizer, av.sidecar, dtype="bfloat16")
  write_ar(
    tmp_path / "ar", ar.architecture, ar.params, ar.head, ar.tokenizer, ar.sidecar, dtype="bfloat16"
  )
  for role in ("av", "ar"):
    before, after = _tensors(folder / f"org-{role}"), _tensors(tmp_path / role)
    assert before.keys() == after.keys() and ("weight" in after) == (role == "ar")
    for name, array in before.items():
      assert (
        array.dtype == after[name].dtype == "bfloat16" and array.tobytes() == after[name].tobytes()
      ), name
  assert (
    read_checkpoint(tmp_path / "av", "av").tokenizer.chat_template == av.tokenizer.chat_template
  )
  sampling = json.loads((tmp_path / "av" / "generation_config.json").read_text())
  assert (sampling["temperature"], sampling["top_p"], sampling["repetition_penalty"]) == (
    1.0,
    1.0,
    1.0,
  )


def _hub_cache(folder: Path, cache: Path, name: str) -> None:
  """Lays a folder in a hub cache as huggingface_hub does: content in blobs, a snapshot of links, a ref."""
  root = cache / f"models--{name.replace('/', '--')}"
  commit = "0123456789abcdef0123456789abcdef01234567"
  for part in ("blobs", "refs", f"snapshots/{commit}"):
    (root / part).mkdir(parents=True)
  (root / "refs" / "main").write_text(commit)
  for number, file in enumerate(sorted(path for path in folder.iterdir() if path.is_file())):
    shutil.copyfile(file, root / "blobs" / f"{number:040x}")
    (root / "snapshots" / commit / file.name).symlink_to(f"../../blobs/{number:040x}")


@pytest.fixture
def cache(released, tmp_path, monkeypatch):
  """A hub cache that holds the Gemma pair as tiny/nla-gemma-L1-av and -ar, and its base as tiny/gemma."""
  from huggingface_hub import constants

  folder = released("4")[0] / "gemma3_text"
  for source, name in (
    ("org-av", "nla-gemma-L1-av"),
    ("org-ar", "nla-gemma-L1-ar"),
    ("base", "gemma"),
  ):
    _hub_cache(folder / source, tmp_path / "hub", f"tiny/{name}")
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
  return tmp_path / "hub"


def test_a_pair_loads_by_its_hub_id_from_the_cache_without_a_network(cache, pair):
  nla, folder = pair("4", "gemma3_text")
  code = (
    "import json, sys, numpy, nla_jax\n"
    "nla = nla_jax.load('tiny/nla-gemma-L1-av', base='tiny/gemma', compute='float32')\n"
    "explained = nla.explain(numpy.load(sys.argv[1]), greedy=True)\n"
    "print(json.dumps([[one.text for one in explained], nla.reconstruct(['a cat']).tolist(),\n"
    "                  len(nla.read('the cat sat on the mat', positions=[-1, 2], greedy=True))]))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, str(folder / "vectors.npy")],
    capture_output=True,
    text=True,
    timeout=600,
    env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  texts, rebuilt, read = json.loads(done.stdout.splitlines()[-1])
  assert (
    texts == [one.text for one in nla.explain(np.load(folder / "vectors.npy"), greedy=True)]
    and read == 2
  )
  np.testing.assert_allclose(rebuilt, nla.reconstruct(["a cat"]), rtol=1e-5, atol=1e-5)


def test_what_the_cache_lacks_is_one_line(cache):
  with pytest.raises(
    NLAError, match="'tiny/other-av' is no local folder and not in the hub's cache"
  ):
    nla_jax.load("tiny/other-av")
  with pytest.raises(NLAError, match="does not end in -av"):
    nla_jax.load("tiny/nla-gemma-L1")


def test_the_ars_name_follows_from_the_avs_where_it_can(copied):
  folder, _ = copied
  for av, ar in (("av", "ar"), ("mine-av", "mine-ar")):
    for role, name in (("av", av), ("ar", ar)):
      shutil.copytree(folder / f"org-{role}", folder / "deep" / name)
    assert nla_jax.load(folder / "deep" / av).pair.layer == 1
  shutil.rmtree(folder / "deep" / "mine-ar")
  with pytest.raises(NLAError, match=r"there is no .*mine-ar beside"):
    nla_jax.load(folder / "deep" / "mine-av")
  assert nla_jax.load(folder / "deep" / "mine-av", ar=folder / "org-ar").pair.layer == 1


@pytest.mark.parametrize(
  ("role", "change", "words"),
  [
    ("av", lambda m: m.update(extraction_layer_index=2), "layer is 2 in the AV and 1 in the AR"),
    (
      "ar",
      lambda m: m["prompt_templates"].update(critic="Text: {explanation}</text> <summary>"),
      "the AR's template",
    ),
    (
      "ar",
      lambda m: m["prompt_templates"].update(actor="Say <concept>{injection_char}</concept>"),
      "the AV's template",
    ),
    ("ar", lambda m: m["tokens"].update(injection_char="a"), "says injection_token_id"),
    ("ar", lambda m: m["tokens"].update(critic_suffix_ids=[1, 2]), "says critic_suffix_ids"),
    (
      "av",
      lambda m: m["tokens"].update(injection_left_neighbor_id=1),
      "says injection_left_neighbor_id",
    ),
    (
      "av",
      lambda m: m["tokens"].update(injection_right_neighbor_id=1),
      "says injection_right_neighbor_id",
    ),
    (
      "ar",
      lambda m: m.update(extraction_layer_index=2),
      "contradicts itself: critic.extraction_layer_index is 1",
    ),
    ("ar", lambda m: m["critic"].update(num_hidden_layers=4), "critic.num_hidden_layers 4"),
    ("ar", lambda m: m["critic"].update(extraction_layer_index=2), "has 3 blocks, this one has 2"),
    ("ar", lambda m: m.update(d_model=64), "the sidecar says d_model 64, the model has 32"),
    ("av", lambda m: m["extraction"].update(norm="whitened"), "sets extraction.norm to 'whitened'"),
    ("av", lambda m: m.update(actor_reasoning_mode="forced_final"), "sets actor_reasoning_mode"),
    ("ar", lambda m: m.update(role="actor"), "the sidecar is an AV's, an AR's is needed"),
  ],
)
def test_a_contradiction_is_named(copied, role, change, words):
  folder, edit = copied
  edit(role, change)
  with pytest.raises(NLAError, match=words):
    nla_jax.load(folder / "org-av")


def test_halves_of_two_bases_are_no_pair(copied, released):
  folder, edit = copied
  edit("av", lambda meta: meta.update(base_checkpoint="org/one"))
  edit("ar", lambda meta: meta.update(base_checkpoint="org/two"))
  with pytest.raises(
    NLAError, match="base_checkpoint is 'org/one' in the AV and 'org/two' in the AR"
  ):
    nla_jax.load(folder / "org-av")
  with pytest.raises(NLAError, match="family is 'llama' in the AV and 'qwen2' in the AR"):
    nla_jax.load(folder / "org-av", ar=released("5")[0] / "qwen2" / "org-ar")
  path = folder / "org-ar" / "config.json"
  config = json.loads(path.read_text())
  config["rope_parameters"]["rope_theta"] = 1e4
  path.write_text(json.dumps(config))
  edit("ar", lambda meta: meta.update(base_checkpoint="org/one"))
  with pytest.raises(NLAError, match=r"rope_theta is 20000\.0 in the AV and 10000\.0 in the AR"):
    nla_jax.load(folder / "org-av")


def test_an_ar_without_a_chat_template_is_whole(copied):
  folder, _ = copied
  (folder / "org-ar" / "chat_template.jinja").unlink()
  assert read_checkpoint(folder / "org-ar", "ar").tokenizer.chat_template is None
  assert nla_jax.load(folder / "org-av").pair.layer == 1


def test_a_base_that_is_not_named_is_asked_for_and_a_wrong_one_refused(pair, released):
  nla, folder = pair("5", "qwen3")
  with pytest.raises(NLAError, match="names no base model to read with"):
    nla.read("the cat")
  with pytest.raises(NLAError, match="is a llama of width 32, this pair explains a qwen3"):
    nla_jax.load(
      folder / "org-av", base=str(released("5")[0] / "llama" / "base"), compute="float32"
    )


def _store(path, splits, layer=1):
  rng, n = np.random.default_rng(0), 8 * len(splits)
  arrays = {
    "activations": ((32,), "float32"),
    "document": ((), "int32"),
    "position": ((), "int32"),
    "norm": ((), "float32"),
  }
  writer = StoreWriter(str(path), arrays, n, 8, 8)
  vectors = rng.normal(size=(n, 32)).astype(np.float32)
  for shard in range(len(splits)):
    writer.write_shard(
      shard,
      {
        "activations": vectors[8 * shard : 8 * shard + 8],
        "document": np.full(8, shard, np.int32),
        "position": np.arange(8, dtype=np.int32),
        "norm": np.linalg.norm(vectors[8 * shard : 8 * shard + 8], axis=1),
      },
    )
  writer.write_documents(
    [
      StoredDocument(f"d{i}", f"g{i}", split, rng.integers(3, 400, 8).astype(np.int32))
      for i, split in enumerate(splits)
    ]
  )
  writer.finish({"layer": layer})
  return Store(str(path))


def test_a_loaded_pair_is_evaluated_on_a_store(pair, tmp_path):
  nla, _ = pair("4", "llama")
  report = evaluation.evaluate(
    nla, _store(tmp_path / "a", ["held_out", "rl", "held_out"]), batch=8, bootstrap_samples=20
  )
  # Synonyms are measured where a thesaurus is installed.
  found = report.metrics["fve"].keys() - {"synonyms"}
  assert report.metrics["rows"] == 16 and found == {"round_trip", "greedy", "shuffled_words"}
  controls = report.metrics["controls"]
  needs_nothing, needs_training = (
    {"shuffled_vector", "zero_vector", "empty_text"},
    {"mean_vector", "mean_per_last_token"},
  )
  assert controls.keys() >= needs_nothing | needs_training and "retrieval" not in controls
  alone = evaluation.evaluate(
    nla, _store(tmp_path / "b", ["held_out", "held_out"]), batch=8, bootstrap_samples=20
  )
  assert alone.metrics["controls"].keys() == controls.keys() - needs_training
  with pytest.raises(NLAError, match="the output of block 3, this pair explains block 1"):
    evaluation.evaluate(nla, _store(tmp_path / "c", ["held_out"], layer=3))
  with pytest.raises(NLAError, match="no split 'held_out'"):
    evaluation.evaluate(nla, _store(tmp_path / "d", ["rl"]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("major", MAJORS)
def test_inspect_describes_a_released_half(released, major, family):
  folder, said = released(major)
  for role, blocks in (("av", "4 (0..3)"), ("ar", "2 (0..1)")):
    found = describe.describe(folder / family / f"org-{role}")
    assert (
      found.missing == [] and found.facts["family"] == family and found.facts["blocks"] == blocks
    )
    assert found.facts["AV template" if role == "av" else "AR template"] == said[f"{role}_template"]
  assert found.facts["layer"].startswith("1 ") and found.facts["mse scale"] == pytest.approx(
    32**0.5
  )
  assert found.facts["value head"].startswith("32 × 32") and "BF16" in found.facts["stored as"]


def test_inspect_takes_a_hub_id_that_is_in_the_cache(cache, capsys):
  assert main(["inspect", "tiny/nla-gemma-L1-av", "tiny/nla-gemma-L1-ar"]) == 0
  printed = capsys.readouterr().out
  assert "an activation reconstructor (AR)" in printed and printed.count("nothing is missing") == 2
  assert main(["inspect", "tiny/other"]) == 2
  assert "there is nothing at tiny/other" in capsys.readouterr().err


def test_a_card_passes_on_the_licence_of_a_base_in_the_cache(cache, released, tmp_path):
  base = next((cache / "models--tiny--gemma" / "snapshots").iterdir())
  (base / "README.md").write_text("---\nlicense: gemma\n---\n")
  (base / "LICENSE").write_text("the terms")
  folder = Path(shutil.copytree(released("4")[0] / "gemma3_text" / "org-av", tmp_path / "av"))
  path = folder / "nla_meta.yaml"
  text = path.read_text(encoding="utf-8").replace("checkpoints/av-sft/iter_0001000", "tiny/gemma")
  path.write_text(text, encoding="utf-8")
  written = model_card.write_card(folder).read_text()
  assert "license: gemma" in written and "base_model: tiny/gemma" in written
  assert (folder / "LICENSE").read_text() == "the terms"
