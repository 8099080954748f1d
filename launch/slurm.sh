#!/usr/bin/env bash
# Several GPU nodes under SLURM: one process a GPU, joined by jax.distributed from SLURM's own variables. SIGTERM comes
# two minutes before the limit; the run saves, ends with status 75, and the job is queued again. The workdir must be seen
# by all nodes: a shared disk, or gs://… or s3://…
#   bash launch/slurm.sh --nodes=2 --gpus=8 [--time=24:00:00] [--partition=NAME] [--dry-run] -- --config=… --workdir=…
# Run `bash launch/gpu_node.sh` once on a node first (or set up .venv with the extra gpu): the job only uses it.
set -euo pipefail

here="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/environment.sh
source "$here/environment.sh"
# shellcheck source=launch/common.sh
source "$here/common.sh"

parse "$@"
nodes="$(option nodes)"
gpus="$(option gpus)"
time="$(option time 24:00:00)"
partition="$(option partition "")"
# The signal goes to the tasks (no `B:`): srun, were it signalled, would kill them at once. They save at a common step and
# end one after another, so none may be killed because another ended; jax ends those whose peer died.
# Read by sbatch from its input: what it is given to --wrap, /bin/sh would run.
script="#!/usr/bin/env bash
srun --kill-on-bad-exit=0 $(quoted "$VENV/bin/nla" run --distributed "${NLA_ARGS[@]}")
status=\$?
if [[ \$status == 75 ]]; then  # stopped and saved
  scontrol requeue \$SLURM_JOB_ID
fi
exit \$status"
if [[ -n "$DRY" ]]; then
  printf '%s\n' "$script"
fi
run sbatch --job-name=nla --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus" --time="$time" \
  ${partition:+--partition="$partition"} --signal=TERM@120 --requeue --open-mode=append --output=nla-%j.log \
  <<<"$script"
