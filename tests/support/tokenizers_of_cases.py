"""Small real tokenizers of the kinds that people bring: bytes with added tokens, and one that puts a blank first."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHAT = (
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASK
)
FLAGGED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
AV = "Explain <concept>{injection_char}</concept>"


def of_bytes(chat=CHAT, special=FLAGGED, added=("㈎",), eos="<|endoftext|>", appended=None):
  """A token a byte, then `special` ones, then `added` ones without the flag; `appended` follows every text."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  backend = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
  backend.add_tokens([AddedToken(one, normalized=False) for one in added])
  if appended:
    backend.post_processor = processors.TemplateProcessing(
      single=f"$A {appended}", special_tokens=[(appended, backend.token_to_id(appended))]
    )
  return PreTrainedTokenizerFast(
    tokenizer_object=backend, eos_token=eos, pad_token=eos, chat_template=chat
  )


def with_blank_first(known="㈎"):
  """Puts a blank before every text, as SentencePiece does, and knows a few characters; the others are <unk>."""
  letters = [chr(i) for i in range(33, 127)] + ["\n", *known]
  scores = [("<unk>", 0.0), ("▁", -2.0), *((one, -3.0) for one in letters)]
  backend = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=False))
  backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
  backend.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
  backend.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in FLAGGED])
  return PreTrainedTokenizerFast(
    tokenizer_object=backend,
    unk_token="<unk>",
    eos_token="<|im_end|>",
    pad_token="<|im_end|>",
    chat_template=CHAT,
  )
