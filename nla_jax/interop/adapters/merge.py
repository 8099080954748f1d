"""Adds an adapter that was read from files to its base model's parameters."""

from typing import Any

from nla_jax.interop.adapters.read import Adapter
from nla_jax.models.merge import merged


def with_adapter(params: dict[str, Any], adapter: Adapter) -> dict[str, Any]:
  """A base model's tree, of all its blocks or of its first, with an adapter added; the tree's matrices are donated."""
  n_layers = len(params["layers"]["query"])
  first = {name: stack[:n_layers] for name, stack in adapter.params["layers"].items()}
  return merged(params, adapter.lora, {"layers": first}, overwrite=True)
