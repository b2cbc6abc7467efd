# The functions that all scripts share: selecting the cluster, and connecting to it. The scripts source this file.
# shellcheck shell=bash disable=SC2034 # scripts that source this file use the variables
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
PROGRAMS=(akrobateo akrobateo-agent akrobateo-lb) # the programs of a release; each also has an image of this name

say() { echo "$(basename "$0"): $*" >&2; }
die() {
  say "$@"
  exit 1
}

# The scripts never use the default kubeconfig. If AKROBATEO_KUBECONFIG and AKROBATEO_CONTEXT are set, the scripts use
# this cluster. Without these variables, the scripts use the cluster that cluster/up starts.
if [ -n "${AKROBATEO_KUBECONFIG:-}" ] || [ -n "${AKROBATEO_CONTEXT:-}" ]; then
  if [ -z "${AKROBATEO_KUBECONFIG:-}" ] || [ -z "${AKROBATEO_CONTEXT:-}" ]; then
    die "set both AKROBATEO_KUBECONFIG and AKROBATEO_CONTEXT, or unset both to use the cluster that cluster/up starts"
  fi
  [ -r "$AKROBATEO_KUBECONFIG" ] ||
    die "cannot read AKROBATEO_KUBECONFIG=$AKROBATEO_KUBECONFIG; expected the path of a kubeconfig"
  OWN_CLUSTER=
else
  OWN_CLUSTER=yes
fi
unset KUBECONFIG
STATE=${AKROBATEO_CLUSTER_DIR:-/var/lib/akrobateo-cluster} # the state directory of the cluster that cluster/up starts

kubectl() {
  if [ "$OWN_CLUSTER" ]; then
    cluster/kubectl "$@"
  else
    command kubectl --kubeconfig "$AKROBATEO_KUBECONFIG" --context "$AKROBATEO_CONTEXT" "$@"
  fi
}

# Runs a command as a client outside the cluster.
run_as_client() {
  if [ "$OWN_CLUSTER" ]; then cluster/client "$@"; else "$@"; fi
}

get_target_triple() { rustc --print host-tuple; }
get_echo_program() { echo "target/$(get_target_triple)/release/echo"; } # the program in the echo image

# Sets the variables of the tests in crates/e2e for the cluster that cluster/up starts.
set_e2e_variables() {
  export AKROBATEO_E2E_KUBECONFIG=$STATE/admin.kubeconfig AKROBATEO_E2E_CONTEXT=akrobateo
  export AKROBATEO_E2E_CLIENT=$ROOT/cluster/client AKROBATEO_E2E_CLUSTER=$ROOT/cluster
  export AKROBATEO_E2E_AUDIT_LOG=$STATE/logs/audit.log
  AKROBATEO_E2E_OPERATOR=$ROOT/target/$(get_target_triple)/release/akrobateo
  export AKROBATEO_E2E_OPERATOR
}
