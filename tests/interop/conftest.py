"""A small real tokenizer and small real models, made anew for each session, by one or two versions of transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
  "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = [
  "a cat sat on the mat while 12 other cats watched the snow fall",
  "<concept> x </concept>",
  "㈎ ㈎ ㈎",
  "<text> the text </text> <summary>",
  "an explanation of the activation vector, in English",
]


@pytest.fixture(scope="session")
def tokenizer():
  """Byte-level BPE with 400 tokens; ㈎ is one of them; its BOS <|im_start|> is never emitted, as with SmolLM2."""
  backend = Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=400,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
  )
  backend.train_from_iterator(WORDS * 20, trainer)
  return PreTrainedTokenizerFast(
    tokenizer_object=backend,
    bos_token="<|im_start|>",
    eos_token="<|im_end|>",
    pad_token="<|im_end|>",
    unk_token="<|endoftext|>",
    chat_template=CHAT_TEMPLATE,
  )


SIZES = dict(
  vocab_size=416,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=3,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
)
LLAMA3 = dict(
  rope_type="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=64,
)


def _make(kind: str):
  import transformers as t

  sliding = ["sliding_attention", "sliding_attention", "full_attention"]
  gemma = dict(head_dim=16, sliding_window=8, layer_types=sliding, query_pre_attn_scalar=24)
  if kind == "gemma3_wrapped":
    vision = dict(
      hidden_size=16,
      intermediate_size=16,
      num_hidden_layers=1,
      num_attention_heads=2,
      image_size=28,
      patch_size=14,
    )
    text = t.Gemma3TextConfig(**SIZES, **gemma).to_dict()
    return t.Gemma3ForConditionalGeneration(t.Gemma3Config(text_config=text, vision_config=vision))
  model, config, options = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, dict(tie_word_embeddings=True)),
    "llama_untied": (
      t.LlamaForCausalLM,
      t.LlamaConfig,
      dict(tie_word_embeddings=False, rope_parameters={"rope_theta": 5e5, **LLAMA3}),
    ),
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


SCRIPTS = Path(__file__).parents[1] / "support" / "interop"
# Released checkpoints were written by transformers 4. launch/environment.sh lays it beside the 5 that nla_jax needs.
TRANSFORMERS_4 = Path(
  os.environ.get("NLA_TRANSFORMERS_4", Path(sys.prefix) / "nla" / "transformers4")
)
SPELLINGS = {  # of the sidecars, by major version of transformers and family; a family without one is a base model only
  "4": {
    "llama": "released",
    "qwen2": "released",
    "qwen3": "training",
    "gemma3_text": "first",
    "gemma3_wrapped": None,
  },
  "5": {
    "llama": "training",
    "qwen2": "first",
    "qwen3": "released",
    "gemma3_text": "released",
    "gemma3_wrapped": None,
  },
}


def _scripts(major: str) -> subprocess.Popen:
  """scripts.py with torch and a major version of transformers, and without nla_jax."""
  environment = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
  }
  environment.pop("PYTHONPATH", None)
  if major == "4":
    if not (TRANSFORMERS_4 / "transformers").is_dir():
      pytest.skip(
        "transformers 4 is not there: bash launch/test.sh installs it with the extra parity"
      )
    environment["PYTHONPATH"] = str(TRANSFORMERS_4)
  return subprocess.Popen(
    [sys.executable, "-P", str(SCRIPTS / "scripts.py")],
    env=environment,
    text=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )


@pytest.fixture(scope="session")
def there():
  """A function of (major version of transformers, script of tests/support/interop, *arguments).

  It runs the script with torch and without nla_jax, and returns the JSON of its last line.
  """
  pytest.importorskip("torch")
  processes = {}

  def run(major: str, script: str, *arguments):
    if major not in processes:
      processes[major] = _scripts(major)
    process = processes[major]
    print(json.dumps([str(SCRIPTS / script), *map(str, arguments)]), file=process.stdin, flush=True)
    line = process.stdout.readline()
    assert line, f"transformers {major} ended with status {process.wait()}"
    answer = json.loads(line)
    assert "error" not in answer, answer["error"][-3000:]
    said = json.loads(answer["printed"].splitlines()[-1])
    assert said["transformers"].split(".")[0] == major
    return said

  yield run
  for process in processes.values():
    process.communicate()  # it ends with its input


@pytest.fixture(scope="session")
def released(there, tokenizer, tmp_path_factory):
  """A function of the major version: (folder with a folder for each family, see writer.py; what the writer says)."""
  made = {}

  def write(major: str):
    if major not in made:
      folder = tmp_path_factory.mktemp(f"written_by_{major}")
      tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
      made[major] = (
        folder,
        there(
          major,
          "writer.py",
          json.dumps(
            {
              "directory": str(folder),
              "tokenizer": str(folder / "tokenizer.json"),
              "families": SPELLINGS[major],
            }
          ),
        ),
      )
    return made[major]

  return write


@pytest.fixture(scope="session")
def read_there(there, tmp_path_factory):
  """A function (major version, [{"av", "ar", "texts", "vectors", "max_new_tokens"}]): what reader.py finds for each."""

  def read(major: str, jobs: list[dict]) -> list[dict]:
    folder = tmp_path_factory.mktemp("read")
    request, answer = folder / "request.json", folder / "answer.json"
    request.write_text(
      json.dumps([job | {"av": str(job["av"]), "ar": str(job["ar"])} for job in jobs])
    )
    there(major, "reader.py", request, answer)
    return json.loads(answer.read_text())

  return read
