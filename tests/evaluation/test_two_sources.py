"""An evaluation on articles and conversations together, with a random model: it and its report speak of each."""

import json

import jax
import jax.numpy as jnp
import pytest
from support.run_process import command

from nla_jax.autoencoder.nla import NLA
from nla_jax.autoencoder.pair import PairSettings, make_pair
from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.autoencoder.turns import opening
from nla_jax.cli.main import main
from nla_jax.data.store.store import Store
from nla_jax.evaluation import harness
from nla_jax.evaluation.report import page
from nla_jax.interop.base_models.random_model import random_model
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params

MINIMUM = 8  # the first position that may be chosen
WORDS = [
  "rights",
  "software",
  "licence",
  "work",
  "source",
  "notice",
  "terms",
  "copy",
  "public",
  "holder",
  "grant",
  "patent",
]


def sentence(seed, n):
  return " ".join(WORDS[(seed * 5 + 3 * i + i * i) % len(WORDS)] for i in range(n))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  folder = tmp_path_factory.mktemp("two_sources")
  articles, talks = folder / "articles.txt", folder / "talks.jsonl"
  articles.write_text("\n\n".join(sentence(i, 12) for i in range(24)))
  with talks.open("w") as file:
    for i in range(24):
      roles = ("user", "assistant")
      messages = [{"role": role, "content": sentence(i + j, 5)} for j, role in enumerate(roles)]
      file.write(json.dumps({"messages": messages}) + "\n")

  options = (f"--config.corpus={articles}+{talks}", f"--config.data.position_minimum={MINIMUM}")
  assert main(command("extract", folder / "run", *options)[4:]) == 0
  return Store(str(folder / "run" / "activations" / "store"))


@pytest.fixture(scope="module")
def evaluated(store):
  base = random_model("random:tiny")
  prompts = make_prompts(base.tokenizer, "Explain <concept>{injection_char}</concept>")
  settings = PairSettings(layer=2, scale=5.0, max_new_tokens=16, dtype=jnp.float32, remat=False)
  pair = make_pair(base.architecture, base.tokenizer, prompts, settings)
  av, ar = verbalizer_params(base.params, 64, "scalar"), reconstructor_params(base.params, 2)
  other = jax.tree.map(lambda leaf: leaf * 1.1, ar)
  nla, before = NLA(pair, av, ar, ""), NLA(pair, av, other, "")
  options = {"rows": 40, "batch": 16, "bootstrap_samples": 50, "best_of": 2, "best_of_rows": 8}
  return harness.evaluate(nla, store, before_rl=before, **options)


def test_each_source_range_and_n_has_its_numbers(evaluated):
  found = evaluated.metrics
  parts = found["by_source"]
  assert parts.keys() == {"articles", "talks"}
  assert sum(part["rows"] for part in parts.values()) == found["rows"]
  for part in parts.values():
    assert part["fve"].keys() == found["fve"].keys() and "fixed_critic" in part["fve"]
    assert part["above_control"].keys() == found["above_control"].keys()
    assert sum(one["rows"] for one in part["by_position"].values()) == part["rows"]
  assert found["by_n"]["1"]["fve"].keys() == {"best_of", "best_of_fixed"}


def test_no_position_lies_before_the_minimum_in_a_conversation_either(evaluated, store):
  """Their template begins with several tokens, behind which the minimum counts."""
  assert len(opening(random_model("random:tiny").tokenizer)) > 0
  assert "0-8" not in evaluated.metrics["by_position"]
  assert "8-16" in evaluated.metrics["by_source"]["talks"]["by_position"]


def test_each_role_has_its_numbers_on_its_own_rows(evaluated, store):
  """Whose token a row is stands in the store; texts have no role, so that the roles' rows are those of the talks."""
  found, talks = evaluated.metrics["by_role"], evaluated.metrics["by_source"]["talks"]
  assert found.keys() <= {"user", "assistant", "last_of_turn"} and "user" in found
  said = sum(found[role]["rows"] for role in ("user", "assistant") if role in found)
  # Of a talk the rest is what the template writes, such as the line's end behind a role.
  assert 0 < said <= talks["rows"] and found.get("last_of_turn", {"rows": 0})["rows"] < said
  for part in found.values():
    assert part["fve"].keys() == evaluated.metrics["fve"].keys() and part["by_position"]
  assert "user: round trip, sampled" in harness.table(evaluated.metrics)


def test_the_report_shows_them(evaluated, tmp_path):
  written = page.write_report(tmp_path / "report.html", {"metrics": evaluated.metrics}).read_text()
  for heading in ("By source", "By role", "By position", "Best of n"):
    assert f">{heading}</h3>" in written
  assert "Round trip, AR before RL by position" in written
