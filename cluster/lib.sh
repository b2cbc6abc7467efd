# Shared by the cluster's scripts (sourced): names, addresses, messages, and how its processes are found.
# shellcheck shell=bash disable=SC2034 # most names are used by the scripts that source this
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/akrobateo
STATE=${AKROBATEO_CLUSTER_DIR:-/var/lib/akrobateo-cluster}
STATE=$(realpath --canonicalize-missing "$STATE")
ADMIN=$STATE/admin.kubeconfig
CONTEXT=akrobateo
PAUSE_IMAGE=ghcr.io/akrobateo/cluster-pause:1

NET4=172.29.0 # the segment that nodes, control plane, client and this machine share
NET6=fd29::
PODS4=10.245.0.0/16
PODS6=fd2a::/48
SERVICES4=10.97.0.0/16
SERVICES6=fd97::/108
API_IP=$NET4.1
API_SERVICE_IP=10.97.0.1
MAX_NODES=20

say() { echo "cluster: $*" >&2; }
die() {
  say "$@"
  exit 1
}
need() { # PROGRAM...
  local program
  for program; do
    command -v "$program" >/dev/null || die "$program is missing (cluster/deps installs what is needed)"
  done
}
need_root() { [ "$(id -u)" = 0 ] || die "must run as root: it makes namespaces and mounts"; }

# --- settings of the running cluster
setting() { sed -n "s/^$1=//p" "$STATE/settings" 2>/dev/null; } # NAME
set_setting() { sed -i "s/^$1=.*/$1=$2/" "$STATE/settings"; }   # NAME VALUE
running() { [ -e "$STATE/complete" ] && same_boot; }
need_cluster() { running || die "no cluster is running; start one with cluster/up"; }

# --- members: `control` and the nodes; each is a set of namespaces whose pid 1 is cluster/init/MEMBER
nodes() { seq -f 'node%.0f' "$(setting nodes)"; }
members() {
  echo control
  nodes
}
need_node() { nodes | grep -qxF -- "$1" || die "no node $1; there are: $(nodes | tr '\n' ' ')"; }
netns() { echo "akrobateo-$1"; } # MEMBER or client
node_ip4() { echo "$NET4.$((10 + ${1#node}))"; }
node_ip6() { echo "$NET6$((10 + ${1#node}))"; }
node_pods4() { echo "10.245.${1#node}.0/24"; }
node_pods6() { echo "fd2a:0:0:${1#node}::/64"; }

# A process is ours if pid, start time and boot are the ones that were noted: pids are used again. One that has ended
# but was not waited for, as happens where this machine's pid 1 is no real init, has ended.
boot_id() { cat /proc/sys/kernel/random/boot_id; }
same_boot() { [ "$(setting boot_id)" = "$(boot_id)" ]; }
start_time() { # PID -> clock ticks since boot
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  awk '$1 == "Z" { exit 1 } { print $20 }' <<<"${stat##*) }"
}
live_pid() { # MEMBER -> pid of the process that holds its namespaces, if it is still there
  local pid started
  same_boot && read -r pid started 2>/dev/null <"$STATE/$1/pid" || return 1
  [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}
first_pid() { # MEMBER -> this machine's pid for the member's pid 1
  local holder children child
  holder=$(live_pid "$1") && children=$(cat "/proc/$holder/task/$holder/children") || return 1
  for child in $children; do
    if start_time "$child" >/dev/null; then
      echo "$child"
      return
    fi
  done
  return 1
}
in_member() { # MEMBER CMD...: in all of its namespaces
  local pid
  pid=$(first_pid "$1") || die "$1 is not running"
  shift
  nsenter --target "$pid" --mount --uts --ipc --net --pid --root --wd -- "$@"
}

cgroup_mounts() { awk '$3 ~ /^cgroup2?$/ && !seen[$2]++ { print $3, $2 }' /proc/self/mounts; } # type and directory

# --- waiting
ended() { # during `up` nothing may end: says what did, and why
  [ ! -e "$STATE/complete" ] || return 1
  local log='' pid member
  for pid in "$STATE"/*/pid; do
    [ -e "$pid" ] || continue
    member=$(basename "$(dirname "$pid")")
    live_pid "$member" >/dev/null || log=$member-init.log
  done
  [ -n "$log" ] || read -r log 2>/dev/null <"$STATE/ended" || return 1
  say "${log%.log} ended; the end of $STATE/logs/$log:"
  tail -n 5 "$STATE/logs/$log" >&2
}
wait_for() { # SECONDS WHAT CMD...
  local deadline=$((SECONDS + $1)) what=$2 said
  shift 2
  until said=$( ("$@") 2>&1 >/dev/null); do
    ! ended || exit 1
    [ "$SECONDS" -lt "$deadline" ] || die "gave up waiting for $what: ${said##*$'\n'} (logs: $STATE/logs)"
    sleep 0.1
  done
}
api_ready() { curl --silent --fail --noproxy '*' --max-time 2 --cacert "$STATE/pki/ca.crt" "https://$API_IP:6443/readyz"; }
serves() { # NODE DAEMON
  case $2 in
    containerd) in_member "$1" "$STATE/bin/ctr" version ;;
    kubelet) in_member "$1" curl --silent --fail --noproxy '*' http://127.0.0.1:10248/healthz ;;
    kube-proxy) "$HERE/steps/kube-proxy-serves" "$1" ;;
  esac
}

# Held by whoever starts or removes the cluster; on the directory above, so that no file is left.
lock() {
  exec 9<"$(dirname "$STATE")"
  flock --nonblock 9 && return
  say "another cluster/up or cluster/down is at work; waiting"
  flock 9
}
