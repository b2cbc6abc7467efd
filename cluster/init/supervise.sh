# Functions that supervise the daemons of a member (the control plane or a node). The script that runs as the member's
# pid 1 sources this file.
# shellcheck shell=bash

supervise() { # DAEMON CMD...: runs a daemon in the background, and restarts the daemon each time it ends
  local daemon=$1 log=$MEMBER-$1.log
  shift
  while :; do
    "$@" >>"$STATE/logs/$log" 2>&1 </dev/null &
    echo $! >"/run/akrobateo/$daemon.pid"
    wait $! || true
    echo "--- $daemon has ended; restarting it in 1 s" >>"$STATE/logs/$log"
    echo "$log" >>"$STATE/ended"
    sleep 1
  done &
}

reap_children() { # waits forever for child processes that end, including orphaned processes of containerd's shims
  while :; do
    wait || true
    sleep 1
  done
}
