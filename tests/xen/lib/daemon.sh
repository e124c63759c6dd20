# The daemon.

# start_daemon [ARGUMENT...]: and wait until it serves
start_daemon() {
    fails test -e /sys/module/xen_blkback
    # The log of one that ran before is in the same file.
    : >>/out/blkback.log
    ready_before=$(times_ready)
    blkback "$@" 2>>/out/blkback.log &
    daemon=$!
    within 10 daemon_is_ready
}

daemon_is_ready() { kill -0 "$daemon" && [ "$(times_ready)" -gt "$ready_before" ]; }

times_ready() { grep -c ' ready ' /out/blkback.log || true; }

stop_daemon() {
    kill "$daemon"
    wait "$daemon"
}

# The file descriptors and mappings of grants that the daemon has: to be compared with those before the guests came.
daemon_footprint() {
    echo "$(ls "/proc/$daemon/fd" | wc -l) descriptors, $(grep -c gntdev "/proc/$daemon/maps" || true) mappings"
}

# At once, so that it can neither finish nor tell anything.
kill_daemon() {
    kill -KILL "$daemon"
    wait "$daemon" || say 'killed'
}
