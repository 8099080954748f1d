#!/usr/bin/env bash
# One machine with any number of GPUs: one process drives them all.
#   bash launch/gpu_node.sh [--dry-run] -- --config=configs/qwen2_5_7b.py --workdir=runs/7b --config.mesh.tensor=2
set -euo pipefail

here="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/environment.sh
source "$here/environment.sh"
# shellcheck source=launch/common.sh
source "$here/common.sh"

parse "$@"
if [[ -z "$DRY" ]]; then
  prepare_environment gpu
fi
run exec env XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 "$VENV/bin/nla" run "${NLA_ARGS[@]}"
