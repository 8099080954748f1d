"""The version of the package: the one place, which `setup.py`, `nla_jax.__version__` and every workdir take it from."""

VERSION = "0.2.0"
