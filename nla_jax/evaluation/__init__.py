"""How good an NLA is, on held-out activations, beside controls and with intervals."""

from nla_jax.evaluation.harness import Report, evaluate
from nla_jax.evaluation.intervals import Estimate

__all__ = ["Estimate", "Report", "evaluate"]
