"""Every stage on a random model and the licence's text: for tests of the path, not for meaning.

  nla run --config=configs/tiny.py --workdir=/tmp/tiny

Expect FVE near zero or below, because the model knows nothing. What it shows is that every stage runs, resumes and
reports.
"""

from pathlib import Path

from nla_jax.config import default_config

PRESETS = {}


def get_config():
  c = default_config()
  c.name = "tiny"
  c.model = "random:tiny"
  c.layer = 2
  c.corpus = str(Path(__file__).parent / "tiny.txt")

  # `auto` would round products on CPUs that multiply bfloat16, and tests compare numbers.
  c.compute = "float32"
  c.remat = False
  c.data.update(
    max_tokens=96,
    positions_per_document=6,
    position_minimum=20,
    held_out=0.2,
    shard_rows=64,
    chunk_rows=16,
    batch_tokens=768,
  )

  # Short texts that a random model learns the form of in 80 steps, so that RL has something to reward.
  c.teacher.update(max_tokens=40, last_words=1, topic_words=1, next_tokens=2)
  c.prompts.av = "Explain <concept>{injection_char}</concept>"
  for model in (c.av, c.ar):
    model.update(steps=80, batch=16, lr=5e-3, lr_end=5e-4, warmup=5)
  c.rl.update(steps=4, ar_steps=1, activations=4, group=4, max_new_tokens=96, sample_every=2)

  c.checkpoint_every = 5
  c.evaluation.update(rows=48, batch=16, examples=20, bootstrap=200)
  return c
