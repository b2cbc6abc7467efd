# Functions that all scripts of the cluster share: names, addresses, messages and processes. The scripts source this file.
# shellcheck shell=bash disable=SC2034 # scripts that source this file use the variables
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/akrobateo
STATE=${AKROBATEO_CLUSTER_DIR:-/var/lib/akrobateo-cluster}
STATE=$(realpath --canonicalize-missing "$STATE")
ADMIN_KUBECONFIG=$STATE/admin.kubeconfig
CONTEXT=akrobateo
PAUSE_IMAGE=ghcr.io/akrobateo/cluster-pause:1
DNS_IMAGE=ghcr.io/akrobateo/cluster-dns:1

NET4=172.29.0 # the network of the nodes, the control plane, the client and this machine
NET6=fd29::
PODS4=10.245.0.0/16
PODS6=fd2a::/48
SERVICES4=10.97.0.0/16
SERVICES6=fd97::/108
API_IP=$NET4.1
API_SERVICE_IP=10.97.0.1
DNS_SERVICE_IP=10.97.0.10
FLANNEL_MTU=1450 # VXLAN needs 50 of the 1,500 bytes of a packet between the nodes
MAX_NODES=20

say() { echo "cluster: $*" >&2; }
die() {
  say "$@"
  exit 1
}
need_programs() { # PROGRAM...
  local program
  for program; do
    command -v "$program" >/dev/null || die "$program is missing; install it with cluster/deps"
  done
}
need_root() { [ "$(id -u)" = 0 ] || die "run this as root: it creates namespaces and mounts"; }

# --- settings of the running cluster
get_setting() { sed -n "s/^$1=//p" "$STATE/settings" 2>/dev/null; } # NAME
set_setting() { sed -i "s/^$1=.*/$1=$2/" "$STATE/settings"; }   # NAME VALUE
is_running() { [ -e "$STATE/complete" ] && is_same_boot; }
need_cluster() { is_running || die "no cluster is running; start one with cluster/up"; }

# --- members: `control` and the nodes. Each member has its own namespaces, whose pid 1 is a script in cluster/init.
list_nodes() { seq -f 'node%.0f' "$(get_setting nodes)"; }
list_members() {
  echo control
  list_nodes
}
need_node() { list_nodes | grep -qxF -- "$1" || die "unknown node $1; expected one of: $(list_nodes | tr '\n' ' ')"; }
netns_name() { echo "akrobateo-$1"; } # MEMBER or client
node_ip4() { echo "$NET4.$((10 + ${1#node}))"; }
node_ip6() { echo "$NET6$((10 + ${1#node}))"; }
node_pods4() { echo "10.245.${1#node}.0/24"; }
node_pods6() { echo "fd2a:0:0:${1#node}::/64"; }

# A process belongs to the cluster if its pid, its start time and the machine's boot id are equal to the recorded
# values. The pid alone is not enough, because the kernel reuses pids. A zombie process is treated as ended, because
# this machine's pid 1 may never reap zombies.
get_boot_id() { cat /proc/sys/kernel/random/boot_id; }
is_same_boot() { [ "$(get_setting boot_id)" = "$(get_boot_id)" ]; }
get_start_time() { # PID: prints the start time in clock ticks since boot
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  awk '$1 == "Z" { exit 1 } { print $20 }' <<<"${stat##*) }"
}
get_starter_pid() { # MEMBER: prints the pid of the process that started the member's pid 1; fails if it has ended
  local pid started
  is_same_boot && read -r pid started 2>/dev/null <"$STATE/$1/pid" || return 1
  [ "$(get_start_time "$pid")" = "$started" ] && echo "$pid"
}
get_init_pid() { # MEMBER: prints the pid of the member's pid 1, as this machine sees it
  local starter children child
  starter=$(get_starter_pid "$1") && children=$(cat "/proc/$starter/task/$starter/children") || return 1
  for child in $children; do
    if get_start_time "$child" >/dev/null; then
      echo "$child"
      return
    fi
  done
  return 1
}
in_member() { # MEMBER CMD...: runs a command in all namespaces of the member
  local pid
  pid=$(get_init_pid "$1") || die "$1 is not running; restart the cluster with cluster/down and cluster/up"
  shift
  nsenter --target "$pid" --mount --uts --ipc --net --pid --root --wd -- "$@"
}

list_cgroup_mounts() { # prints type and directory of each mount
  awk '$3 ~ /^cgroup2?$/ && !seen[$2]++ { print $3, $2 }' /proc/self/mounts
}

# --- waiting
report_ended() { # if a program has ended during cluster/up, prints its name and its last log lines; otherwise fails
  [ ! -e "$STATE/complete" ] || return 1
  local log='' pid member
  for pid in "$STATE"/*/pid; do
    [ -e "$pid" ] || continue
    member=$(basename "$(dirname "$pid")")
    get_starter_pid "$member" >/dev/null || log=$member-init.log
  done
  [ -n "$log" ] || read -r log 2>/dev/null <"$STATE/ended" || return 1
  say "${log%.log} has ended; the last lines of $STATE/logs/$log:"
  tail -n 5 "$STATE/logs/$log" >&2
}
wait_for() { # SECONDS NAME CMD...: repeats the command until it succeeds
  local deadline=$((SECONDS + $1)) limit=$1 name=$2 errors
  shift 2
  until errors=$( ("$@") 2>&1 >/dev/null); do
    ! report_ended || exit 1
    [ "$SECONDS" -lt "$deadline" ] || die "timed out after $limit s waiting for $name: ${errors##*$'\n'} (logs: $STATE/logs)"
    sleep 0.1
  done
}
is_api_ready() { curl --silent --fail --noproxy '*' --max-time 2 --cacert "$STATE/pki/ca.crt" "https://$API_IP:6443/readyz"; }
is_flannel_connected() { # NODE: fails unless the node has routes through flannel's devices to the pods of each other node
  local node routes
  routes=$(in_member "$1" ip route show dev flannel.1; in_member "$1" ip -6 route show dev flannel-v6.1)
  for node in $(list_nodes); do
    [ "$node" = "$1" ] || [[ $routes == *"$(node_pods4 "$node") "*"$(node_pods6 "$node") "* ]] || return 1
  done
}
is_serving() { # NODE DAEMON
  case $2 in
    containerd) in_member "$1" "$STATE/bin/ctr" version ;;
    kubelet) in_member "$1" curl --silent --fail --noproxy '*' http://127.0.0.1:10248/healthz ;;
    kube-proxy) "$HERE/steps/check-kube-proxy" "$1" ;;
    flannel) is_flannel_connected "$1" ;;
    kube-router) in_member "$1" curl --silent --fail --noproxy '*' http://127.0.0.1:20244/healthz ;;
  esac
}

# Takes the lock of cluster/up and cluster/down. This function locks the parent directory of the cluster's state
# directory, because a separate lock file would remain afterwards.
lock() {
  exec 9<"$(dirname "$STATE")"
  flock --nonblock 9 && return
  say "waiting for another cluster/up or cluster/down to end"
  flock 9
}
