"""Any chat template of a small grammar, and any prompt template: prompts, or one line; nothing else."""

import pytest
from support.tokenizers_of_cases import AV, of_bytes

from nla_jax.autoencoder.prompts import make_prompts
from nla_jax.errors import NLAError
from nla_jax.interop.pairs.yaml_reader import template_from_file, template_to_file

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

PIECES = st.sampled_from(
  [
    "{{ m.content }}", "{{ m.role }}", "{{ m.content[0].text }}", "{{ m.content | upper }}", "{{ nothing.at.all }}",
    "{{ 1 / 0 }}", "{% if m.role == 'user' %}", "{% endif %}", "<|im_end|>", "<|im_start|>", "㈎", "\n", "{{", "%}",
    "{{ strftime_now('%Q') }}", "{{ raise_exception('no\nno') }}", "{{ m.content | random }}", "\ud800", "8201746395",
  ]
)  # fmt: skip


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(st.lists(PIECES, max_size=6).map("".join), st.booleans())
def test_any_template_of_a_small_grammar_serves_or_is_one_line(inside, looped):
  chat = f"{{% for m in messages %}}{inside}{{% endfor %}}" if looped else inside
  try:
    prompts = make_prompts(of_bytes(chat), AV)
  except NLAError as error:
    assert "\n" not in str(error)
  else:
    assert prompts.after[0] == prompts.marker_id and prompts.close


WORDS = st.text(st.sampled_from("{}a :\n<\ud800é\x00"), max_size=8)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(WORDS, WORDS)
def test_any_prompt_template_is_taken_as_it_stands_and_comes_back_from_a_file(before, after):
  tokenizer = of_bytes()
  av, ar = f"{before}{{injection_char}}{after}", f"a b {before}{{explanation}}{after}"
  for template, field in ((av, "{injection_char}"), (ar, "{explanation}")):
    assert template_from_file(template_to_file(template, field)) == template
  try:
    prompts = make_prompts(tokenizer, av, ar)
  except NLAError as error:
    assert "\n" not in str(error)
    return

  # The user's turn, trimmed by no one.
  shown = tokenizer.decode([*prompts.before, *prompts.after])
  assert f"user\n{before}㈎{after}<|im_end|>" in shown
  for text in ("x", "", "{explanation}", "{}"):
    ids = [*prompts.ar_before, *prompts.ar_ids(tokenizer, text)]
    assert tokenizer.decode(ids) == f"a b {before}{text}{after}"
    assert tuple(ids[len(ids) - len(prompts.ar_suffix) :]) == prompts.ar_suffix
