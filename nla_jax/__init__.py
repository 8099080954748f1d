"""Natural language autoencoders on JAX: activations to text and back.

nla = nla_jax.load("runs/smollm2_135m")
nla.explain(activations)      # [n, d_model] -> explanations, each with its cosine and FVE
nla.reconstruct(["…"])        # -> [n, d_model]
nla.read("any text")          # what the target thinks at the last token; also conversations, see NLA.read
"""

from nla_jax.autoencoder.nla import NLA, Explanation
from nla_jax.errors import NLAError
from nla_jax.loading import load
from nla_jax.parallel import process
from nla_jax.reading.reading import Reading
from nla_jax.version import VERSION

__all__ = ["NLA", "Explanation", "NLAError", "Reading", "load"]
__version__ = VERSION

# The CPU client reads this once, when the first array is made. An import is the last moment that surely comes before,
# also for a script or a notebook that never enters `nla`; a call that somebody must remember would bring the deadlock
# back.
process.give_cpu_devices_threads()
