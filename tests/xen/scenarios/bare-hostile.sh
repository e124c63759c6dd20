# Backends that are nothing but nodes in XenStore, wrong ones: the guest that is nothing but our frontend says in time what is the
# matter, and ends.
# limit: 300
# needs: bare

# The toolstack's part of it, by hand: met_by BACKEND TYPE COMMAND. BACKEND is a function that plays one; it is called with the
# directories of backend and frontend when the guest starts.
met_by() {
    local backend=$1 domain back front
    configure_bare one "$2" "$3"
    xl create -qp /run/one.cfg
    domain=$(xl domid one)
    back=/local/domain/0/backend/vbd/$domain/51712 front=/local/domain/$domain/device/vbd/51712
    xenstore-write "$front" '' "$back" '' "$front/backend" "$back" "$front/backend-id" 0 "$front/virtual-device" 51712 \
        "$front/device-type" disk "$front/state" 1 "$back/frontend" "$front" "$back/frontend-id" "$domain" "$back/online" 1 \
        "$back/state" 1
    xenstore-chmod -r "$front" "n$domain" r0
    xenstore-chmod -r "$back" n0 "r$domain"
    "$backend" "$back" "$front" &
    xl unpause one
    fails end_of_bare -t 30 one | tee said
    xenstore-rm "$back"
    wait $!
    grep '^failed: ' said
    fails grep 'panicked' said
}

# The frontend's state, within its time: is_in STATE FRONT
is_in() { [ "$(xenstore-read "$2/state" 2>/dev/null)" = "$1" ]; }

# The guest has offered its rings: offered BACK FRONT
offered() {
    xenstore-write "$1/state" 2
    within 10 is_in 3 "$2"
}

# ... and is connected to a disk of 16 MiB whose requests nobody takes.
connected() {
    offered "$@"
    xenstore-write "$1/sectors" 32768 "$1/sector-size" 512 "$1/info" 0 "$1/state" 4
    within 10 is_in 4 "$2"
}

never_begins() { :; }

refuses() {
    xenstore-write "$1/error" 'no such image' "$1/state" 2
    within 10 is_in 3 "$2"
    xenstore-write "$1/state" 6
}

never_connects() { offered "$@"; }

vanishes() {
    offered "$@"
    xenstore-rm "$1"
}

# Every key of what it offers: numbers that are none, or too large, or negative, and bytes that are no text.
offers_garbage() {
    local key
    for key in max-ring-page-order max-ring-pages multi-queue-max-queues max-request-segments max-request-size max-requests; do
        xenstore-write "$1/$key" 99999999999999999999
    done
    for key in feature-persistent feature-barrier feature-flush-cache feature-discard discard-secure discard-granularity \
        discard-alignment feature-max-indirect-segments; do
        xenstore-write -- "$1/$key" $'-1 \x01\xff'
    done
    xenstore-write "$1/state" 2
}

# Every key of what the disk is.
sells_garbage() {
    offered "$@"
    xenstore-write "$1/sectors" many "$1/sector-size" '' "$1/info" $'\xfe' "$1/physical-sector-size" 3 "$1/state" 4
}

never_answers() { connected "$@"; }

# While requests are under way.
dies() {
    connected "$@"
    sleep 1
    xenstore-rm "$1"
}

changes_its_size() {
    connected "$@"
    xenstore-write "$1/sectors" 8192 "$1/state" 4 "$1/sectors" 0 "$1/state" 4
}

changes_its_mind() {
    local state
    connected "$@"
    for state in '' 99 -1 four 0 1 3 2 4 7 8 5 4 2 6 1 4 2; do xenstore-write -- "$1/state" "$state" || return 0; done
}

met_by never_begins pv 'info timeout=2'
grep 'is still Initialising after 2 s; waited for InitWait' said
met_by refuses pv 'info timeout=2'
grep 'closed the device: no such image' said
met_by never_connects pv 'info timeout=2'
grep 'is still InitWait after 2 s; waited for Connected' said
met_by vanishes pv 'info timeout=2'
grep 'closed the device' said
for backend in offers_garbage sells_garbage; do
    met_by $backend pv 'info timeout=2'
    grep -E "^failed: /local/domain/0/backend/vbd/[0-9]+/51712: " said
done
for type in pv pvh; do
    met_by never_answers $type 'verify segments=direct timeout=2'
    grep 'no answer within 2 s' said
    grep 'I/Os failed when the disk was closed' said
done
met_by dies pv 'soak timeout=2'
grep 'the backend is gone' said
met_by changes_its_size pv 'soak timeout=2'
grep '51712: sectors: 0 is not within' said
met_by changes_its_mind pv 'soak timeout=2'
nothing_left
