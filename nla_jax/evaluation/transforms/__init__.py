"""Explanations said otherwise, cut or garbled: what the AR still rebuilds from them says where its information lies."""

from nla_jax.evaluation.transforms.table import (
  TRANSFORMS,
  Material,
  Transform,
  applied,
  material_of,
  transform,
)

__all__ = ["TRANSFORMS", "Material", "Transform", "applied", "material_of", "transform"]
