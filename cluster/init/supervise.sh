# For pid 1 of a member of the cluster (sourced): keeps its daemons running.
# shellcheck shell=bash

keep() { # DAEMON CMD...: runs it in the background, and again whenever it ends
  local daemon=$1 log=$MEMBER-$1.log
  shift
  while :; do
    "$@" >>"$STATE/logs/$log" 2>&1 </dev/null &
    echo $! >"/run/akrobateo/$daemon.pid"
    wait $! || true
    echo "--- $daemon ended; again in 1 s" >>"$STATE/logs/$log"
    echo "$log" >>"$STATE/ended"
    sleep 1
  done &
}

reap() { # pid 1 also inherits what containerd's shims leave behind
  while :; do
    wait || true
    sleep 1
  done
}
