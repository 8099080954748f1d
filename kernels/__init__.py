"""Pallas kernels, each beside its plain-JAX reference; installed and imported as `nla_jax.kernels`."""
