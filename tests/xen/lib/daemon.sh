# The daemon.

# start_daemon [ARGUMENT...]: and wait until it serves
start_daemon() {
    fails test -e /sys/module/xen_blkback
    # The log of one that ran before is in the same file.
    : >>/out/blkback.log
    ready_before=$(times_ready)
    blkback --images "$PWD" --images /images --images /dev/nullb0 "$@" 2>>/out/blkback.log &
    daemon=$!
    within 10 daemon_is_ready
}

daemon_is_ready() { kill -0 "$daemon" && [ "$(times_ready)" -gt "$ready_before" ]; }

times_ready() { grep -c ' ready ' /out/blkback.log || true; }

stop_daemon() {
    kill "$daemon"
    wait "$daemon"
}

# The process that serves: the one that was started is its keeper.
serving() { cut -d' ' -f1 "/proc/$daemon/task/$daemon/children"; }

# The file descriptors and mappings of grants that the daemon has: to be compared with those before the guests came.
daemon_footprint() {
    local process
    process=$(serving)
    echo "$(ls "/proc/$process/fd" | wc -l) descriptors, $(grep -c gntdev "/proc/$process/maps" || true) mappings"
}

# At once, so that it can neither finish nor tell anything.
kill_daemon() {
    kill -KILL "$daemon"
    wait "$daemon" || say 'killed'
}
