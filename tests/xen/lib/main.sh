# Runs the scenario in dom0: any command that fails ends it, and the logs are kept whatever happens.
set -eEuo pipefail
shopt -s inherit_errexit
. /bed/env
for part in /bed/lib/*.sh; do [ "$part" = "$0" ] || . "$part"; done

# Says which line of the scenario failed, through the helpers that it called.
explain() {
    local status=$1 command=$2 depth
    [ "$BASHPID" = $$ ] || return 0
    exec >&3 2>&3
    echo "FAILED with status $status: $command"
    for ((depth = 1; depth < ${#BASH_SOURCE[@]} - 1; depth++)); do
        echo "    at ${BASH_SOURCE[depth]#/bed/}:${BASH_LINENO[depth - 1]}"
    done
}

keep_logs() {
    local status=$?
    trap - ERR
    set +e
    exec >&3 2>&3
    # Both hang when XenStore is gone.
    xl() { timeout 5 "$(type -P xl)" "$@"; }
    xenstore-ls() { timeout 5 "$(type -P xenstore-ls)" "$@"; }
    xl list
    [ $status -eq 0 ] || { say 'the daemon last said:'; tail -n 20 /out/blkback.log; } 2>/dev/null
    [ $status -eq 0 ] || tail -n 15 /var/log/xen/console/guest-*.log 2>/dev/null
    # It writes to /out, which is to be left in order.
    [ -z "${daemon:-}" ] || kill -KILL "$daemon" 2>/dev/null
    cp /var/log/xen/console/*.log /var/log/xen/*.log /out/ 2>/dev/null
    dmesg >/out/dom0-dmesg.log
    xl dmesg >/out/xen-dmesg.log
    xenstore-ls -fp >/out/xenstore.log 2>/dev/null
    exit $status
}

say() { echo "--- $*" >&2; }

# What goes wrong is said on the console, whatever the failing helper's output was sent to.
exec 3>&1
trap 'explain $? "$BASH_COMMAND"' ERR
trap keep_logs EXIT
trap 'echo "FAILED: took longer than $BED_LIMIT s" >&3; exit 124' TERM
. /bed/scenario.sh
say "$BED_SCENARIO passed"
