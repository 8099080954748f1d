"""The two-way table that says where each of our parameters stands in a Hugging Face file and in a GGUF file.

Our leaves keep heads apart and put inputs first ([d_model, heads, head_dim]). Files keep two dimensions and put
outputs first ([heads * head_dim, d_model]). Every leaf of the table says which of three layouts the file uses: `table`
(the same shape), `flat` (one dimension) or `linear` (outputs first; `inputs` of our leading dimensions are the file's
last).
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from nla_jax.interop.base_models.numbers import check_largest
from nla_jax.models.architectures import Architecture
from nla_jax.parallel.placement import copy_to_devices, stack
from nla_jax.parallel.sharding import parameter_shardings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
  """One parameter of one block, or of the whole model.

  Attributes:
    ours: key in our parameter tree (below `layers` for a block's parameter).
    hf: name in a Hugging Face file; `{layer}` is the block's index.
    gguf: the same in a GGUF file.
    dims: our shape, each a field of `Architecture`.
    layout: `table`, `flat` or `linear`.
    inputs: with `linear`, how many leading dims of ours are inputs.
    is_norm: the value is an RMSNorm's weight (GGUF stores Gemma's with the 1 already added).
  """

  ours: str
  hf: str
  gguf: str
  dims: tuple[str, ...]
  layout: str
  inputs: int = 0
  is_norm: bool = False

  def shape(self, architecture: Architecture) -> tuple[int, ...]:
    """Our shape, without the leading layer axis."""
    return tuple(getattr(architecture, dim) for dim in self.dims)

  def file_shape(self, architecture: Architecture) -> tuple[int, ...]:
    """The shape in a file, in numpy (row-major) order."""
    shape = self.shape(architecture)
    if self.layout == "table":
      return shape
    if self.layout == "flat":
      return (int(np.prod(shape)),)

    # torch keeps a linear layer's weight as [out, in].
    return (int(np.prod(shape[self.inputs :])), int(np.prod(shape[: self.inputs])))

  def from_file(self, array: np.ndarray, architecture: Architecture) -> np.ndarray:
    """Returns an array in the file's shape as a view in ours."""
    # A view, so that of a memory-mapped file only what a device takes is read.
    return (array.T if self.layout == "linear" else array).reshape(self.shape(architecture))

  def to_file(self, array: np.ndarray, architecture: Architecture) -> np.ndarray:
    """The inverse of `from_file`, contiguous."""
    rows, *columns = self.file_shape(architecture)
    if self.layout == "linear":
      return np.ascontiguousarray(array.reshape(columns[0], rows).T)
    return np.ascontiguousarray(array.reshape(rows, *columns))


def _vector(ours: str, hf: str, gguf: str) -> Leaf:
  """A norm's weight, [d_model]."""
  return Leaf(ours=ours, hf=hf, gguf=gguf, dims=("d_model",), layout="flat", is_norm=True)


_ATTENTION = "model.layers.{layer}.self_attn"
_MLP = "model.layers.{layer}.mlp"
_BLOCK = "model.layers.{layer}"

_EMBEDDING = Leaf(
  ours="embedding",
  hf="model.embed_tokens.weight",
  gguf="token_embd.weight",
  dims=("vocab_size", "d_model"),
  layout="table",
)
_FINAL_NORM = _vector("final_norm", "model.norm.weight", "output_norm.weight")
_UNEMBEDDING = Leaf(
  ours="unembedding",
  hf="lm_head.weight",
  gguf="output.weight",
  dims=("vocab_size", "d_model"),
  layout="table",
)


def _projection(ours: str, hf: str, gguf: str, dims: tuple[str, ...], inputs: int = 1) -> Leaf:
  """A linear layer's weight."""
  return Leaf(
    ours=ours,
    hf=hf + ".weight",
    gguf=f"blk.{{layer}}.{gguf}.weight",
    dims=dims,
    layout="linear",
    inputs=inputs,
  )


_WEIGHTS = (
  _projection("query", _ATTENTION + ".q_proj", "attn_q", ("d_model", "n_heads", "head_dim")),
  _projection("key", _ATTENTION + ".k_proj", "attn_k", ("d_model", "n_kv_heads", "head_dim")),
  _projection("value", _ATTENTION + ".v_proj", "attn_v", ("d_model", "n_kv_heads", "head_dim")),
  _projection(
    "output", _ATTENTION + ".o_proj", "attn_output", ("n_heads", "head_dim", "d_model"), inputs=2
  ),
  _projection("gate", _MLP + ".gate_proj", "ffn_gate", ("d_model", "d_ff")),
  _projection("up", _MLP + ".up_proj", "ffn_up", ("d_model", "d_ff")),
  _projection("down", _MLP + ".down_proj", "ffn_down", ("d_ff", "d_model")),
)

_BIASES = tuple(
  Leaf(
    ours=ours,
    hf=f"{_ATTENTION}.{hf}.bias",
    gguf=f"blk.{{layer}}.{gguf}.bias",
    dims=(heads, "head_dim"),
    layout="flat",
  )
  for ours, hf, gguf, heads in (
    ("query_bias", "q_proj", "attn_q", "n_heads"),
    ("key_bias", "k_proj", "attn_k", "n_kv_heads"),
    ("value_bias", "v_proj", "attn_v", "n_kv_heads"),
  )
)

_QK_NORMS = tuple(
  Leaf(
    ours=ours,
    hf=f"{_ATTENTION}.{hf}.weight",
    gguf=f"blk.{{layer}}.{gguf}.weight",
    dims=("head_dim",),
    layout="flat",
    is_norm=True,
  )
  for ours, hf, gguf in (
    ("query_norm", "q_norm", "attn_q_norm"),
    ("key_norm", "k_norm", "attn_k_norm"),
  )
)

_PRE_NORMS = (
  _vector("attention_norm", _BLOCK + ".input_layernorm.weight", "blk.{layer}.attn_norm.weight"),
  _vector("mlp_norm", _BLOCK + ".post_attention_layernorm.weight", "blk.{layer}.ffn_norm.weight"),
)

# Gemma 3 gives the name `post_attention_layernorm` to the norm that the others do not have.
_SANDWICH_NORMS = (
  _vector("attention_norm", _BLOCK + ".input_layernorm.weight", "blk.{layer}.attn_norm.weight"),
  _vector(
    "post_attention_norm",
    _BLOCK + ".post_attention_layernorm.weight",
    "blk.{layer}.post_attention_norm.weight",
  ),
  _vector("mlp_norm", _BLOCK + ".pre_feedforward_layernorm.weight", "blk.{layer}.ffn_norm.weight"),
  _vector(
    "post_mlp_norm",
    _BLOCK + ".post_feedforward_layernorm.weight",
    "blk.{layer}.post_ffw_norm.weight",
  ),
)


def block_leaves(architecture: Architecture) -> tuple[Leaf, ...]:
  """The parameters of one block of this architecture."""
  leaves = _SANDWICH_NORMS if architecture.sandwich_norm else _PRE_NORMS
  leaves += _WEIGHTS
  if architecture.attention_bias:
    leaves += _BIASES
  if architecture.qk_norm:
    leaves += _QK_NORMS
  return leaves


def model_leaves(architecture: Architecture, *, headless: bool) -> tuple[Leaf, ...]:
  """The parameters outside the blocks; `headless` leaves out the final norm and the unembedding."""
  if headless:
    return (_EMBEDDING,)

  return (_EMBEDDING, _FINAL_NORM) if architecture.tied else (_EMBEDDING, _FINAL_NORM, _UNEMBEDDING)


def all_leaves(architecture: Architecture, *, headless: bool) -> list[tuple[Leaf, int | None]]:
  """Returns (leaf, block) for every tensor in a model's files; the block is None outside the blocks."""
  outside = model_leaves(architecture, headless=headless)
  blocks = block_leaves(architecture)
  return [(leaf, None) for leaf in outside] + [
    (leaf, layer) for layer in range(architecture.n_layers) for leaf in blocks
  ]


def abstract_tree(architecture: Architecture, *, headless: bool, dtype="float32") -> dict:
  """Our parameter tree as `jax.ShapeDtypeStruct`s, block parameters stacked along a leading layer axis."""
  dtype = np.dtype(dtype)

  def struct(leaf: Leaf, *leading: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*leading, *leaf.shape(architecture)), dtype)

  n_layers = architecture.n_layers
  tree = {leaf.ours: struct(leaf) for leaf in model_leaves(architecture, headless=headless)}
  layers = {leaf.ours: struct(leaf, n_layers) for leaf in block_leaves(architecture)}
  return tree | {"layers": layers}


def _name_in_gguf(leaf: Leaf, layer: int | None) -> str:
  return leaf.gguf.format(layer=layer)


def tree_from_file(
  read: Callable[[Leaf, int | None], np.ndarray],
  architecture: Architecture,
  *,
  headless: bool,
  dtype="float32",
  name_of: Callable[[Leaf, int | None], str] = _name_in_gguf,
) -> dict:
  """Builds our parameter tree on the devices of the mesh in context, one tensor after another.

  Args:
    read: function of (leaf, layer or None) that returns the tensor in the file's shape, any float dtype. Of a
      memory-mapped tensor only what the devices of this process hold is read.
    architecture: says which parameters there are; its `n_layers` blocks are read.
    headless: leave out the final norm and the unembedding.
    dtype: of the parameters, `float32` or `bfloat16`.
    name_of: function of (leaf, layer or None) that returns what a message calls the tensor.

  Returns:
    The tree of `jax.Array`s in the layout of `parallel.sharding`, block parameters stacked along a leading axis of
    `n_layers`.

  Raises:
    NLAError: a tensor holds NaN, infinity or a number that no trained model has.
  """
  dtype = np.dtype(dtype)
  shapes = abstract_tree(architecture, headless=headless, dtype=dtype)
  shardings = parameter_shardings(shapes)

  tree = {"layers": {}}
  for leaf in model_leaves(architecture, headless=headless):
    # Given no name: a name would keep the last of these mapped, all of an unembedding, while the blocks are read.
    tree[leaf.ours], largest = copy_to_devices(
      leaf.from_file(read(leaf, None), architecture), shardings[leaf.ours], dtype
    )
    # Checked on the devices, which have the values anyway, as soon as they are there.
    # A vocabulary of zeros reads every text as the same one, or gives every token the same chance.
    check_largest(largest, name_of(leaf, None), zero=leaf.is_norm)

  # The stack of a leaf is filled in place: beside it never more than one layer's tensor exists.
  for leaf in block_leaves(architecture):

    def layer_of(layer: int, leaf: Leaf = leaf) -> np.ndarray:
      return leaf.from_file(read(leaf, layer), architecture)

    shape, where = shapes["layers"][leaf.ours].shape, shardings["layers"][leaf.ours]
    tree["layers"][leaf.ours], found = stack(layer_of, shape, where, dtype)
    for layer, largest in enumerate(found):
      check_largest(float(largest), name_of(leaf, layer))
  return tree
