# Guests that are nothing but our frontend. Each does what its command line says, and ends. needs: bare

# boot_bare [-t SECONDS] NAME pv|pvh COMMAND [disk=SPEC]...: until it has ended; prints what it prints, returns its status, 124
# if it takes too long, 125 if it ended without a word
boot_bare() {
    local limit=60 OPTIND=1
    if [ "$1" = -t ]; then
        limit=$2
        shift 2
    fi
    start_bare "$@"
    end_of_bare -t "$limit" "$1"
}

# start_bare NAME pv|pvh COMMAND [disk=SPEC]...
start_bare() {
    configure_bare "$@"
    xl create -q "/run/$1.cfg"
}

# configure_bare NAME pv|pvh COMMAND [disk=SPEC]...: for `xl create`
configure_bare() {
    local name=$1 type=$2 command=$3 disks=() word
    for word in "${@:4}"; do disks+=("'${word#disk=}'"); done
    # Without tsc_mode PVH guests hang under emulation; see guest.sh. Without vcpus xl sets too little aside for Xen's page tables
    # to restore so small a guest.
    cat >"/run/$name.cfg" <<END
name = "$name"
type = "$type"
memory = 32
vcpus = 1
kernel = "/bed/bare"
extra = "$command"
disk = [ $(IFS=,; echo "${disks[*]}") ]
on_crash = "destroy"
tsc_mode = "native"
END
    rm -f "$CONSOLES/guest-$name.log"
    say "$name, $type: $command"
}

# end_of_bare [-t SECONDS] NAME: waits for it, and prints and returns what boot_bare does
end_of_bare() {
    local limit=60 OPTIND=1
    if [ "$1" = -t ]; then
        limit=$2
        shift 2
    fi
    within "$limit" is_gone "$1" >/dev/null || return 124
    # The console's daemon may be a moment behind.
    within 2 answer_of "$1" 0 >/dev/null || true
    told_by_bare "$1"
    return "$(answer_of "$1" 0 || echo 125)"
}

# What it has printed so far.
told_by_bare() { tr -d '\r' <"$CONSOLES/guest-$1.log"; }

# has_told NAME PATTERN TIMES
has_told() { [ "$(told_by_bare "$1" | grep -cE "$2")" -ge "$3" ]; }

# told_sum FILE: it has printed the sum of what is in the file; its output is the input
told_sum() { grep "^sha256 $(sha256sum <"$1" | cut -d' ' -f1)$"; }
