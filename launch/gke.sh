#!/usr/bin/env bash
# TPU slices on Google Kubernetes Engine: a JobSet (launch/jobset.yaml) whose pods join by jax.distributed, or xpk.
#   bash launch/gke.sh --name=nla --image=REGISTRY/nla --accelerator=tpu-v5p-slice --topology=4x4x4 --hosts=16 --chips=4 \
#     [--slices=1] [--with=xpk --cluster=NAME --type=v5p-128] [--dry-run] -- --config=… --workdir=/gcs/…
# The image is made from launch/Dockerfile: docker build -f launch/Dockerfile --build-arg EXTRA=tpu -t REGISTRY/nla .
set -euo pipefail

here="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/common.sh
source "$here/common.sh"

parse "$@"
command="$(quoted nla run --distributed "${NLA_ARGS[@]}")"
if [[ "$(option with kubectl)" == xpk ]]; then
  run xpk workload create --cluster="$(option cluster)" --workload="$(option name)" --docker-image="$(option image)" \
    --tpu-type="$(option type)" --num-slices="$(option slices 1)" --max-restarts=100 --command="$command"
  exit
fi
OPTION[slices]="$(option slices 1)"
OPTION[command]="$command"
manifest="$(<"$here/jobset.yaml")"
for name in name image accelerator topology hosts chips slices command; do
  value="$(option "$name")"
  manifest="${manifest//"\${${name^^}}"/"$value"}"
done
if [[ -n "$DRY" ]]; then
  printf '%s\n' "$manifest"
  run kubectl apply -f -
else
  kubectl apply -f - <<<"$manifest"
fi
