"""SentencePiece BPE (`tokenizer.ggml.model: llama`) as Gemma has it, from the pieces and scores of a GGUF header.

SentencePiece merges the neighbours whose union is the piece with the best score; `tokenizers` merges by a list of
pairs. The list is rebuilt as transformers' converter builds it: every cut of a piece into two pieces, ordered by the
union's score, then with the longer left part first. The converter to GGUF loses two things, which are put back: it
writes user-defined runs of spaces with spaces where the vocabulary has "▁", and it overwrites the score 0 of every
piece that was not learned with -1000.

What was checked for Gemma 3: 514,906 pairs come out, the first of 30 and one newlines, as in the original
tokenizer.json (its count and first pair stand in llama.cpp's logs of Gemma 4, which learned the same pieces); ids
that others printed for a line of Unicode; the ids of `sentencepiece` itself, given these pieces and scores, over
random and written texts (see `tests/interop/base_models/test_gemma_tokenizer.py`).
"""

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from nla_jax.errors import NLAError

NORMAL, USER_DEFINED, BYTE = 1, 4, 6  # tokenizer.ggml.token_type
_SPACE = "▁"
# Header keys that change how text is cut, and the values that are Gemma's; None where the key may be absent.
_EXPECTED = {
  "add_space_prefix": (False,),
  "pre": (None, "default"),
  "remove_extra_whitespaces": (None, False),
  "precompiled_charsmap": (None,),
  "add_eos_token": (None, False),
}


def sentencepiece_bpe(header: dict[str, Any]) -> tuple[Tokenizer, list[str]]:
  """Builds the tokenizer without its added tokens.

  Args:
    header: the GGUF's key/value pairs, `tokens`, `scores` and `token_type` among them.

  Returns:
    The tokenizer, and all pieces by id.

  Raises:
    NLAError: text is normalised or cut otherwise than for Gemma, or byte pieces are missing.
  """
  # 1. Settings that would give other ids without any sign of it.
  for key, allowed in _EXPECTED.items():
    found = header.get(f"tokenizer.ggml.{key}")
    if found not in allowed:
      raise NLAError(
        f"GGUF SentencePiece tokenizer with {key}={found!r} is not known (Gemma's has "
        f"{' or '.join(map(repr, allowed))}): use the model's Hugging Face directory instead"
      )

  # 2. The vocabulary. The converter wrote user-defined runs of spaces with spaces.
  types = header["tokenizer.ggml.token_type"]
  pieces = [
    piece.replace(" ", _SPACE) if kind == USER_DEFINED else piece
    for piece, kind in zip(header["tokenizer.ggml.tokens"], types, strict=True)
  ]

  # With all 256, every text has ids: what no piece covers falls back to bytes.
  bytes_ = {piece for piece, kind in zip(pieces, types) if kind == BYTE}
  if bytes_ != {f"<0x{byte:02X}>" for byte in range(256)}:
    raise NLAError(
      f"GGUF SentencePiece tokenizer has {len(bytes_)} byte pieces, 256 are needed: use the model's "
      "Hugging Face directory instead"
    )

  # 3. The merges. Normaliser, cut and decoder are those of Gemma's own tokenizer.json.
  unknown = pieces[header.get("tokenizer.ggml.unknown_token_id", 0)]
  vocabulary = {piece: index for index, piece in enumerate(pieces)}
  merges = _merges(pieces, header["tokenizer.ggml.scores"], types, vocabulary)
  tokenizer = Tokenizer(
    models.BPE(
      vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
  )
  tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
  tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
  tokenizer.decoder = decoders.Sequence(
    [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
  )
  return tokenizer, pieces


def _merges(
  pieces: list[str], scores: list[float], types: list[int], vocabulary: dict[str, int]
) -> list[tuple[str, str]]:
  """Pairs of pieces whose union is a piece, in the order in which BPE merges them."""
  found = []
  for piece, score, kind in zip(pieces, scores, types, strict=True):
    if kind not in (NORMAL, USER_DEFINED):
      continue

    # The header's -1000 of a user-defined piece is the converter's: in the vocabulary its score is 0, the best.
    rank = -score if kind == NORMAL else 0.0
    for cut in range(1, len(piece)):
      left, right = piece[:cut], piece[cut:]
      if left in vocabulary and right in vocabulary:
        found.append((rank, -len(left), -len(right), left, right))

  # Ties are left in the order of the ids, for the sort is stable and the texts are no part of its key.
  found.sort(key=lambda entry: entry[:3])
  return [(left, right) for *_, left, right in found]
