"""What Inspect and Scout find by name: `nla/<model>`, `nla_jax/nla_audit`, `nla_jax/nla_scanner`; the entry point.

Inspect loads it whenever it looks up a model's name, anybody's, and it takes as long as `import nla_jax`.
"""

import sys

from nla_jax.inspect_plugin.game import nla_audit as nla_audit
from nla_jax.inspect_plugin.provider import NLAModel as NLAModel
from nla_jax.inspect_plugin.read_activations import read_activations as read_activations

# Who scans has imported Scout by now; for everybody else it would be seconds of their time.
if "inspect_scout" in sys.modules:
  from nla_jax.inspect_plugin.scanner import nla_scanner as nla_scanner
