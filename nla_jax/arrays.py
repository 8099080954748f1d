"""The array type of signatures: a model takes arrays on the host as well as on a device, traced ones included."""

import jax
import numpy as np

Array = jax.Array | np.ndarray
