"""A local model answers in Inspect through the library's decoding; what it wrote can be read later, token by token."""

import asyncio

import pytest
from support.adapter_folder import write_random_adapter
from support.browser import tiny_pair
from support.inspecting import GenerateConfig, Sample, Task, chat, get_model, read_eval_log, run

from nla_jax.errors import NLAError
from nla_jax.inspect_plugin.read_activations import read_activations
from nla_jax.inspect_plugin.target import read_output, target_model
from nla_jax.interop.base_models.random_model import byte_tokenizer, random_model

TINY = "nla/random:tiny"
ASKED = chat("Which river flows through Paris?")


@pytest.fixture(scope="module")
def nla(tmp_path_factory):
  return tiny_pair(tmp_path_factory.mktemp("pair"))


def answer(model, asked=ASKED, **config):
  config = {"max_tokens": 12, "seed": 3, **config}
  return asyncio.run(model.generate(asked, config=GenerateConfig(**config)))


def test_the_answer_is_the_librarys_own_and_its_ids_are_kept(nla):
  output = answer(target_model(nla), temperature=0)
  prompt = nla.tokens([{"role": "user", "content": ASKED[0].text}], reply=True).ids
  (expected,) = nla.complete(prompt, max_new_tokens=12, greedy=True)
  kept = output.metadata["nla"]
  assert (kept["prompt_ids"], kept["answer_ids"]) == (prompt, [expected])
  assert output.completion == nla.pair.tokenizer.decode(expected)
  assert (output.usage.input_tokens, output.usage.output_tokens) == (len(prompt), len(expected))
  assert output.stop_reason == ("stop" if len(expected) < 12 else "max_tokens")


def test_a_seed_repeats_a_draw_and_without_one_the_log_says_which_it_was():
  model = get_model(TINY)
  first, again, other = (answer(model, seed=seed) for seed in (3, 3, 4))
  assert first.completion == again.completion != other.completion
  drawn = answer(model, seed=None)
  assert answer(model, seed=drawn.metadata["nla"]["seed"]).completion == drawn.completion
  assert len(set(one.message.text for one in answer(model, num_choices=3).choices)) == 3


def test_a_last_message_of_the_assistant_is_continued():
  found = answer(get_model(TINY), chat("Hello", "I am"))
  prompt = found.metadata["nla"]["prompt_ids"]
  assert byte_tokenizer().decode(prompt).endswith("assistant\nI am")


def test_a_long_prompt_is_an_overflow_and_less_room_is_a_shorter_answer():
  model = get_model(TINY)
  full = answer(model, chat("a" * 2048))
  assert full.stop_reason == "model_length" and "leaves no room" in full.error
  around = len(answer(model, chat("")).metadata["nla"]["prompt_ids"])
  tight = answer(model, chat("a" * (2048 - around - 5)), temperature=0)
  assert tight.usage.output_tokens <= 5


def test_an_adapter_answers_otherwise_than_its_base(tmp_path):
  architecture = random_model("random:tiny").architecture
  folder = write_random_adapter(tmp_path / "adapter", architecture, base="random:tiny")
  base, organism = get_model(TINY), get_model(TINY, adapter=str(folder))
  assert answer(base, temperature=0).completion != answer(organism, temperature=0).completion


def test_what_a_log_keeps_is_read_on_the_tokens_that_were_written(nla, tmp_path):
  task = Task(dataset=[Sample(input=ASKED[0].text)])
  config = GenerateConfig(max_tokens=12, temperature=0)
  run(task, target_model(nla, config), tmp_path)
  (path,) = tmp_path.glob("*.eval")
  output = read_eval_log(str(path)).samples[0].output

  kept = output.metadata["nla"]
  (ids,) = kept["answer_ids"]
  before = len(kept["prompt_ids"])
  found = read_output(nla, output, [0, -1], best_of=1)
  assert found.positions == [before, before + len(ids) - 1]
  assert found.tokens.ids == kept["prompt_ids"] + ids
  direct = nla.read(kept["prompt_ids"] + ids, [before, -1], best_of=1)
  assert [one.answer for one in found] == [one.answer for one in direct]
  assert found.norms == direct.norms


def test_an_output_of_others_and_another_adapters_are_refused(nla):
  output = answer(target_model(nla))
  foreign = output.model_copy(update={"metadata": None})
  with pytest.raises(NLAError, match="only answers of nla/<model> can be read"):
    read_output(nla, foreign)
  with pytest.raises(NLAError, match="choice=1: the output has 1 answers"):
    read_output(nla, output, choice=1)
  output.metadata["nla"]["adapter"] = "elsewhere"
  with pytest.raises(NLAError, match="written with the adapter elsewhere"):
    read_output(nla, output)


@pytest.mark.parametrize(
  ("options", "sentence"),
  [
    ({"top_p": 0.9}, "does not know top_p"),
    ({"stop_seqs": ["x"], "logprobs": True}, "does not know stop_seqs, logprobs"),
    ({"temperature": -1.0}, "expected a number above 0"),
    ({"num_choices": 65}, "at most 64"),
  ],
)
def test_what_decoding_does_not_do_is_refused_in_one_line(options, sentence):
  with pytest.raises(NLAError, match=sentence) as caught:
    answer(get_model(TINY), **options)
  assert "\n" not in str(caught.value)


def test_tools_are_refused_since_the_model_cannot_call_them(nla):
  with pytest.raises(NLAError, match="calls no tools"):
    asyncio.run(target_model(nla).generate(ASKED, tools=[read_activations(nla)]))


def test_a_model_that_is_not_there_is_refused_when_it_is_named():
  with pytest.raises(NLAError, match="random:large"):
    get_model("nla/random:large")


def test_texts_are_counted_by_the_models_own_tokenizer():
  assert asyncio.run(get_model(TINY).count_tokens("hello")) == 5
