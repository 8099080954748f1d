"""A small real tokenizer and small real models, made anew for each session."""
import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
WORDS = ["a cat sat on the mat while 12 other cats watched the snow fall", "<concept> x </concept>", "㈎ ㈎ ㈎",
         "<text> the text </text> <summary>", "an explanation of the activation vector, in English"]


@pytest.fixture(scope="session")
def tokenizer():
  """Byte-level BPE with 400 tokens; ㈎ is one of them; its BOS <|im_start|> is never emitted, as with SmolLM2."""
  backend = Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
  backend.train_from_iterator(WORDS * 20, trainer)
  return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>",
                                 pad_token="<|im_end|>", unk_token="<|endoftext|>", chat_template=CHAT_TEMPLATE)


SIZES = dict(vocab_size=416, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)


def _make(kind: str):
  import transformers as t

  sliding = ["sliding_attention", "sliding_attention", "full_attention"]
  gemma = dict(head_dim=16, sliding_window=8, layer_types=sliding, query_pre_attn_scalar=24)
  if kind == "gemma3_wrapped":
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                  patch_size=14)
    text = t.Gemma3TextConfig(**SIZES, **gemma).to_dict()
    return t.Gemma3ForConditionalGeneration(t.Gemma3Config(text_config=text, vision_config=vision))
  model, config, options = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, dict(tie_word_embeddings=True)),
    "llama_untied": (t.LlamaForCausalLM, t.LlamaConfig,
                     dict(tie_word_embeddings=False, rope_parameters={"rope_theta": 5e5, **LLAMA3})),
    "qwen2": (t.Qwen2ForCausalLM, t.Qwen2Config, dict(tie_word_embeddings=True)),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, dict(tie_word_embeddings=False, head_dim=16)),
    "gemma3_text": (t.Gemma3ForCausalLM, t.Gemma3TextConfig, gemma),
  }[kind]
  return model(config(**SIZES, **options))


@pytest.fixture(scope="session")
def torch_model(tmp_path_factory):
  """A function of the kind (see `_make`) that gives the directory of a random model saved by transformers."""
  torch = pytest.importorskip("torch")
  made = {}

  def directory(kind: str):
    if kind not in made:
      torch.manual_seed(0)
      model = _make(kind)
      with torch.no_grad():
        for parameter in model.parameters():
          parameter.normal_(std=0.3)
      made[kind] = tmp_path_factory.mktemp(kind)
      model.save_pretrained(made[kind])
    return made[kind]

  return directory


@pytest.fixture
def edit_config():
  """A function that changes keys of a directory's config.json."""

  def edit(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

  return edit
