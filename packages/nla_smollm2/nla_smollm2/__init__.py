"""Adapters of an AV and an AR on SmolLM2-135M-Instruct: `nla_jax.load("package:nla_smollm2")`."""
