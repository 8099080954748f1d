#!/usr/bin/env bash
# A TPU VM or a whole pod slice (all of its workers) with gcloud: makes the slice where it is missing, copies the checkout,
# sets up the environment on every worker and runs. A slice that was preempted is made again and the run goes on; the
# workdir must be seen by all workers: gs://…, or NFS.
#   bash launch/tpu.sh --name=nla --zone=us-east5-a --type=v5p-64 [--spot=yes] [--dry-run] -- --config=… --workdir=gs://…
set -euo pipefail

here="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/common.sh
source "$here/common.sh"

parse "$@"
checkout="$(cd "$here/.." && pwd)"
name="$(option name)"
zone="$(option zone)"
type="$(option type)"
spot="$(option spot "")"
tpu() { run gcloud compute tpus tpu-vm "$1" "$name" --zone="$zone" "${@:2}"; }
remote="cd nla_jax && source launch/environment.sh && prepare_environment tpu"
remote+=" && { .venv/bin/nla run --distributed $(quoted "${NLA_ARGS[@]}"); status=\$?; echo \$status >status; exit \$status; }"

attempt() {
  if [[ -n "$DRY" ]] || ! gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1; then
    tpu create --accelerator-type="$type" --version="$(option version v2-alpha-tpuv5)" ${spot:+--spot}
  fi
  tpu scp --worker=all --recurse "$checkout" nla_jax
  tpu ssh --worker=all --command="$remote"
}

until attempt; do
  echo "the run stopped; looking whether the slice is still there" >&2
  state="$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)' 2>/dev/null || true)"
  if [[ "$state" == READY ]]; then
    # 75: it was told to stop, as before maintenance, and has saved.
    if [[ "$(tpu ssh --worker=0 --command="cat nla_jax/status" || true)" == 75 ]]; then
      sleep 60
      continue
    fi
    echo "the slice is there: the run itself failed, see above" >&2
    exit 1
  fi
  gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet || true
  sleep 60
done
