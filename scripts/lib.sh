# Shared by the scripts (sourced): which cluster they are for, and how they talk to it.
# shellcheck shell=bash disable=SC2034 # names are used by the scripts that source this
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD

say() { echo "$(basename "$0"): $*" >&2; }
die() {
  say "$@"
  exit 1
}

# The ambient kubeconfig is never used: a cluster is named, or it is the one in cluster/.
if [ -n "${AKROBATEO_KUBECONFIG:-}" ] || [ -n "${AKROBATEO_CONTEXT:-}" ]; then
  if [ -z "${AKROBATEO_KUBECONFIG:-}" ] || [ -z "${AKROBATEO_CONTEXT:-}" ]; then
    die "AKROBATEO_KUBECONFIG and AKROBATEO_CONTEXT name a cluster together; give both, or none for the one in cluster/"
  fi
  [ -r "$AKROBATEO_KUBECONFIG" ] || die "AKROBATEO_KUBECONFIG: cannot read $AKROBATEO_KUBECONFIG"
  OWN_CLUSTER=
else
  OWN_CLUSTER=yes
fi
unset KUBECONFIG
STATE=${AKROBATEO_CLUSTER_DIR:-/var/lib/akrobateo-cluster} # of the cluster in cluster/

kubectl() {
  if [ "$OWN_CLUSTER" ]; then
    cluster/kubectl "$@"
  else
    command kubectl --kubeconfig "$AKROBATEO_KUBECONFIG" --context "$AKROBATEO_CONTEXT" "$@"
  fi
}

# Runs a command as a client outside the cluster.
client() {
  if [ "$OWN_CLUSTER" ]; then cluster/client "$@"; else "$@"; fi
}

target_triple() { rustc --print host-tuple; }
echo_program() { echo "target/$(target_triple)/release/echo"; } # as it is in the image

# What the tests in crates/e2e need to know of the cluster in cluster/.
e2e_variables() {
  export E2E_KUBECONFIG=$STATE/admin.kubeconfig E2E_CONTEXT=akrobateo
  export E2E_CLIENT=$ROOT/cluster/client E2E_CLUSTER=$ROOT/cluster E2E_AUDIT_LOG=$STATE/logs/audit.log
  E2E_OPERATOR=$ROOT/target/$(target_triple)/release/akrobateo
  export E2E_OPERATOR
}
