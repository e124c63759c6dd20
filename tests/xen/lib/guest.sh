# Guests. Each runs /init of the guest image, which does what it is told over the console.

CONSOLES=/var/log/xen/console

# create NAME [pv|pvh] [driver-domain] [vcpus=N] [memory=MB] [disk=SPEC]... [cmdline=WORDS]
create() {
    local name=$1 type=pv vcpus=1 memory=256 disks=() cmdline='' driver=0 word
    for word in "${@:2}"; do
        case $word in
        pv | pvh) type=$word ;;
        driver-domain) driver=1 ;;
        vcpus=*) vcpus=${word#*=} ;;
        memory=*) memory=${word#*=} ;;
        disk=*) disks+=("'${word#*=}'") ;;
        cmdline=*) cmdline=${word#*=} ;;
        *) echo "create: what is $word?" && return 2 ;;
        esac
    done
    [ -e /bed/ramdisk ] || cat /bed/guest.cpio /bed/pair.cpio >/bed/ramdisk
    # Without tsc_mode a PVH guest hangs under emulation: Xen trips over rdtscp.
    cat >"/run/$name.cfg" <<END
name = "$name"
type = "$type"
vcpus = $vcpus
memory = $memory
kernel = "/bed/vmlinux"
ramdisk = "/bed/ramdisk"
extra = "console=hvc0 quiet loglevel=4 panic=1 $cmdline"
disk = [ $(IFS=,; echo "${disks[*]}") ]
on_crash = "destroy"
driver_domain = $driver
tsc_mode = "native"
END
    rm -f "$CONSOLES/guest-$name.log"
    say "creating $name, $type"
    xl create -q "/run/$name.cfg"
    within 120 answer_of "$name" 0
    equal "$name's start" "$(answer_of "$name" 0)" 0
}

# run [-t SECONDS] NAME COMMAND: runs it in the guest, prints what it prints, returns its status, 124 if it takes too long
run() {
    local limit=60 OPTIND=1
    if [ "$1" = -t ]; then
        limit=$2
        shift 2
    fi
    # Any number that was not used before.
    local name=$1 number=${EPOCHREALTIME/./}
    say "$name: $2"
    echo "$number $(base64 -w0 <<<"$2")" >"$(console_of "$name")"
    within "$limit" answer_of "$name" "$number" >/dev/null || return 124
    output_of "$name" "$number"
    return "$(answer_of "$name" "$number")"
}

# The status of a command, once it is over.
answer_of() { tr -d '\r' <"$CONSOLES/guest-$1.log" | sed -nE "s/^@@ $2 ([0-9]+)$/\1/p" | grep .; }

# What came between the ends of the command before and of this one.
output_of() {
    tr -d '\r' <"$CONSOLES/guest-$1.log" |
        awk -v number="$2" '/^@@ / { if ($2 == number) { printf "%s", output; exit } output = ""; next } { output = output $0 "\n" }' |
        sed '$ { /^$/d }'
}

console_of() { xenstore-read "/local/domain/$(xl domid "$1")/console/tty"; }

# Tells the guest's kernel to power off, and waits until nothing of it is left.
shut_down() {
    say "shutting $1 down"
    xl shutdown "$1" >/dev/null
    within 30 is_gone "$1"
}

is_gone() { ! xl domid "$1"; }

# Runs a command that makes the guest reboot, and waits until it is up again, in a new domain: reboots NAME COMMAND...
reboots() {
    local domain starts
    domain=$(xl domid "$1")
    starts=$(starts_of "$1")
    say "rebooting $1"
    "${@:2}"
    within 120 has_rebooted "$1" "$domain" "$starts"
}

has_rebooted() { [ "$(xl domid "$1")" -gt "$2" ] && [ "$(starts_of "$1")" -gt "$3" ]; }

# All domains of this name, one after the other, write the same log.
starts_of() { grep -c '^@@ 0 0' "$CONSOLES/guest-$1.log"; }
