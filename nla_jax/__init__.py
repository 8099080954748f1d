"""Natural language autoencoders on JAX: activations to text and back.

nla = nla_jax.load("runs/smollm2_135m")
nla.explain(activations)      # [n, d_model] -> explanations, each with its cosine and FVE
nla.reconstruct(["…"])        # -> [n, d_model]
nla.read("any text")          # what the target thinks at the last token
"""

from nla_jax.autoencoder.nla import NLA, Explanation
from nla_jax.errors import NLAError
from nla_jax.loading import load

__all__ = ["NLA", "Explanation", "NLAError", "load"]
__version__ = "0.1.0"
