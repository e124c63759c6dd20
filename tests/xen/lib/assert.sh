# What must hold.

# equal WHAT ACTUAL EXPECTED
equal() {
    [ "$2" = "$3" ] || { echo "$1: '$2', not '$3'"; return 1; }
}

# fails COMMAND...: it must not succeed
fails() {
    if "$@"; then
        echo "succeeded, and should not have: $*"
        return 1
    fi
}

# within SECONDS COMMAND...: it succeeds before long
within() {
    local limit=$1 end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -gt $end ]; then
            echo "not within $limit s: $*"
            return 1
        fi
        sleep 0.2
    done
}

COMPLAINTS='BUG:|WARNING:|Oops|Call Trace|Bad page|soft lockup|blocked for more than'

# no_kernel_complaint NAME...: nothing that a kernel complains about: neither dom0's nor that of a running guest
no_kernel_complaint() {
    fails grep -E "$COMPLAINTS" <(dmesg)
    no_guest_complaint "$@"
}

# no_guest_complaint NAME...: as before, where dom0's own drivers are what is tried
no_guest_complaint() {
    local name
    for name in "$@"; do
        equal "complaints of $name's kernel" "$(run "$name" "dmesg | grep -cE '$COMPLAINTS' || true")" 0
    done
}

# No guest is left, alive or half dead, and nothing of one in XenStore.
nothing_left() {
    within 10 no_domains || { xl list; return 1; }
    within 5 no_devices || { xenstore-ls -f /local/domain/0/backend; return 1; }
    equal 'domains in XenStore' "$(xenstore-list /local/domain)" 0
}

no_domains() { [ "$(xl list | tail -n +2 | awk '{ print $1 }')" = Domain-0 ]; }

no_devices() { ! xenstore-ls -f /local/domain/0/backend 2>/dev/null | grep -E '/backend/(vbd|qdisk)/[0-9]+/'; }

# How many grants of a guest are mapped by others, says the hypervisor: grants_in_use NAME
# Console and XenStore rings are among them; compare with the number before.
grants_in_use() {
    local domain
    domain=$(xl domid "$1")
    xl debug-keys g
    xl dmesg | awk -v domain="d$domain" '
        /gnttab_usage_print_all \[/ { count = 0 }
        /grant-table for remote/ { counting = index($0, "remote " domain " ") > 0 }
        counting && /\[0x[0-9a-f]+\]/ { count++ }
        END { print count }'
}
