"""What can be known of a run before its first expensive step: one rule an owner of settings, each a small function."""

import math

from ml_collections import ConfigDict

from nla_jax import files
from nla_jax.autoencoder import chat
from nla_jax.autoencoder.chat import template_hash
from nla_jax.autoencoder.magnitude import LEAST_ROWS
from nla_jax.autoencoder.prompts import check_kept
from nla_jax.data.corpora.mixture import read_weights
from nla_jax.data.roles import check_positions
from nla_jax.data.store import rounding
from nla_jax.data.teachers.model import read_prompt
from nla_jax.errors import NLAError
from nla_jax.interop.base_models.load import load_pretrained
from nla_jax.interop.pairs.beforehand import check_beforehand
from nla_jax.models.lora import TARGETS
from nla_jax.parallel.mesh import check_mesh
from nla_jax.providers.find import PROVIDERS, known_price, open_provider
from nla_jax.run.asking import LOCAL
from nla_jax.run.pressures import rewording
from nla_jax.run.run import Run
from nla_jax.run.warm_start import initial_prompts
from nla_jax.training.settings import check_settings
from nla_jax.workdir import MANIFEST

TEACHERS = ("readout", "file", LOCAL, *PROVIDERS)


def check(run: Run) -> None:
  """Checks the config against itself, the base model and the mesh in context.

  The base model's tokenizer and architecture are read, none of its weights.

  Raises:
    NLAError: something cannot work; the message says what to change.
  """
  config = run.config
  check_names(config)
  check_supervised(config)
  check_settings(config.rl)
  rewording(config.rl)  # raises where the synonyms that it needs are not installed
  check_teacher(config)
  check_export(config)
  check_magnitude(config)

  # From here on the base model is looked at.
  check_layer(run)
  check_model_adapter(run)
  check_lora(run)
  check_lengths(run)
  check_mesh(run.pretrained.architecture, config)
  check_pair(run)
  check_initial(run)
  check_conversations(run)


def check_names(config: ConfigDict) -> None:
  """A model and a corpus are named, and what is taken of the corpus is known."""
  if not config.model or not config.corpus:
    raise NLAError(
      "the config names no model or no corpus: give --config.model=… and --config.corpus=…"
    )
  read_weights(config.corpus, config.data.weights)
  check_positions(config.data)


def check_supervised(config: ConfigDict) -> None:
  """A batch of SFT can be cut into equal parts."""
  # Every part is compiled for one shape.
  for name in ("av", "ar"):
    batch, accumulate = config[name].batch, config[name].accumulate
    if accumulate < 1 or batch % accumulate:
      raise NLAError(
        f"config.{name}.accumulate={accumulate} does not divide config.{name}.batch={batch}"
      )


def check_teacher(config: ConfigDict) -> None:
  """The teacher is known, and what it reads is there or will be."""
  teacher = config.teacher
  if teacher.provider not in TEACHERS:
    raise NLAError(
      f"config.teacher.provider={teacher.provider!r}: expected {' or '.join(TEACHERS)}"
    )

  # The readout teacher names what the target predicted, so extraction must have kept so many predictions.
  if teacher.provider == "readout" and config.data.next_tokens < teacher.next_tokens:
    raise NLAError(
      f"the readout teacher names {teacher.next_tokens} next tokens and extraction keeps "
      f"{config.data.next_tokens}; raise --config.data.next_tokens"
    )
  if teacher.provider in (LOCAL, *PROVIDERS):
    check_asked(config)
  if teacher.provider == "file":
    files.expect_file(teacher.path, "the teacher's file", "check --config.teacher.path")


def check_asked(config: ConfigDict) -> None:
  """The language model that teaches is there, what it is asked as well, and what it costs is known."""
  teacher, api = config.teacher, config.api
  read_prompt(teacher.prompt)
  if teacher.provider == LOCAL:
    if not teacher.model:
      raise NLAError("config.teacher.provider=local: name the model with --config.teacher.model")
    chat.chosen_template(load_pretrained(teacher.model, weights=False).tokenizer)
    return
  open_provider(teacher.provider, teacher.model, api.url)
  known_price(teacher.provider, teacher.model, api.url, tuple(api.price), "--config.api.price")
  if api.ceiling <= 0 or api.parallel < 1:
    raise NLAError(
      f"config.api.ceiling={api.ceiling} and config.api.parallel={api.parallel}: expected US dollars above 0 and at "
      "least one request at once"
    )


def check_export(config: ConfigDict) -> None:
  """What is exported is what is trained."""
  if config.export_form not in ("merged", "adapter"):
    raise NLAError(f"config.export_form={config.export_form!r}: expected merged or adapter")
  if config.export_form == "adapter" and not config.lora.rank and not config.init:
    raise NLAError(
      "config.export_form=adapter: all weights are trained and there is no adapter to export; set "
      "--config.lora.rank or --config.export_form=merged"
    )


def check_magnitude(config: ConfigDict) -> None:
  """The head for magnitudes is fitted to enough rows, or not at all."""
  rows = config.evaluation.magnitude_rows
  if rows and rows < LEAST_ROWS:
    raise NLAError(
      f"config.evaluation.magnitude_rows={rows}: expected 0, or at least {LEAST_ROWS} (512 are plenty)"
    )


def check_layer(run: Run) -> None:
  """The base model has the layer, and its activations can be kept as they are to be."""
  rounding.check(run.config.data.rows, run.pretrained.architecture.d_model)
  layer, layers = run.config.layer, run.pretrained.architecture.n_layers
  if not 0 <= layer < layers:
    raise NLAError(f"config.layer={layer}: {run.config.model} has blocks 0..{layers - 1}")


def check_model_adapter(run: Run) -> None:
  """The adapter on the target belongs to it, and changes what is read."""
  if run.model_adapter is None:
    return
  # Read here, whole: it is small, and every mistake in it is named before the model's weights are loaded.
  below = {
    name: stack[: run.config.layer + 1]
    for name, stack in run.model_adapter.params["layers"].items()
  }
  if not any(stack.any() for name, stack in below.items() if name.endswith("_lora_b")):
    raise NLAError(
      f"config.model_adapter={run.config.model_adapter} changes no block up to config.layer={run.config.layer}: its "
      "activations would be the base model's; read a higher layer"
    )


def check_lora(run: Run) -> None:
  """The adapters can be made."""
  c = run.config.lora
  if c.rank < 0:
    raise NLAError(
      f"config.lora.rank={c.rank}: 1 or more trains adapters of this rank, 0 trains every weight"
    )
  if not c.rank:
    return

  # 1. What they are.
  if not c.alpha > 0:
    raise NLAError(
      f"config.lora.alpha={c.alpha:g}: expected more than 0, since an adapter's product is multiplied by alpha / rank"
    )
  unknown = [name for name in c.targets if name not in TARGETS]
  if unknown or not c.targets:
    given = f"no block has {', '.join(map(repr, unknown))}" if unknown else "none is named"
    raise NLAError(f"config.lora.targets: {given}; expected some of {', '.join(TARGETS)}")

  # 2. Whether the matrices are large enough: above its narrower side a product of two is no longer of low rank.
  matrices = run.pretrained.architecture.matrices
  widths = {name: min(map(math.prod, matrices[name])) for name in c.targets}
  narrowest = min(widths, key=widths.get)
  if c.rank > widths[narrowest]:
    raise NLAError(
      f"config.lora.rank={c.rank}: {narrowest} of {run.config.model} is only {widths[narrowest]} wide; lower it, or "
      f"leave {narrowest} out of --config.lora.targets"
    )


def check_lengths(run: Run) -> None:
  """An explanation of any teacher fits into an answer, and an answer and a document into the base model's positions."""
  c, positions = run.config, run.pretrained.architecture.max_positions

  # Tokens that stand around every explanation in an answer. An answer that is cut off there cannot be read.
  around = len(run.prompts.answer_ids(run.pretrained.tokenizer, ""))
  if c.rl.max_new_tokens < c.teacher.max_tokens + around:
    raise NLAError(
      f"config.rl.max_new_tokens={c.rl.max_new_tokens} cannot hold the teacher's explanations: "
      f"{c.teacher.max_tokens} tokens and {around} around them; raise it or lower "
      "--config.teacher.max_tokens"
    )

  # The prompt, the slot and the answer are one sequence to the AV.
  prompt = len(run.prompts.before) + len(run.prompts.after)
  if prompt + c.rl.max_new_tokens > positions:
    raise NLAError(
      f"config.rl.max_new_tokens={c.rl.max_new_tokens} and the AV's prompt of {prompt} tokens are more "
      f"than the {positions} positions that {c.model} was made for; lower it"
    )
  if c.data.max_tokens > positions:
    raise NLAError(
      f"config.data.max_tokens={c.data.max_tokens}: {c.model} was made for {positions} positions; lower "
      "it"
    )


def check_pair(run: Run) -> None:
  """The AV and the AR can be made as the config says, and exported at the end; neither has parameters yet."""
  run.pair(
    1.0
  )  # raises on an unknown injection, kernel or dtype; α is not known yet and does not matter
  base = run.pretrained
  check_beforehand(base.architecture, base.tokenizer, run.prompts, run.config.layer, base.ends)


def check_initial(run: Run) -> None:
  """The pair to begin with speaks the prompts that this run makes."""
  if run.config.init:
    kept, where = initial_prompts(run.config), f"the pair config.init={run.config.init}"
    check_kept(kept.ids, run.prompts, run.pretrained.tokenizer, where)


def check_conversations(run: Run) -> None:
  """Conversations that were extracted earlier were written by the chat template that is used now."""
  if not files.exists(run.path("extract") / MANIFEST):
    return
  was = run.extracted.chat_template
  if was is not None and was != template_hash(run.pretrained.tokenizer):
    raise NLAError(
      f"{run.path('extract')} holds conversations that another chat template wrote than the one that is used now: take "
      "back that template, give another --workdir, or delete that folder and those of the stages after it"
    )
