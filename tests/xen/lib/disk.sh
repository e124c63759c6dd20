# Images in dom0, and disks of guests in xl's notation.

# make_image FILE SIZE: the first 8 MiB random, the rest empty
make_image() {
    dd if=/dev/urandom of="$1" bs=1M count=8 status=none
    truncate -s "$2" "$1"
}

md5_of() { md5sum <"$1" | cut -d' ' -f1; }

# served_by_us FILE DEVICE [r|w]: through the daemon, by way of its hotplug script
served_by_us() { echo "format=raw,vdev=$2,access=${3:-w},backendtype=phy,script=block-blkback,target=$(target_of "$1")"; }

# A path, with what stands before it if that says what it is.
target_of() { case $1 in *:*) echo "${1%%:*}:$(realpath "${1#*:}")" ;; *) realpath "$1" ;; esac; }

# served_by_kernel FILE DEVICE [r|w]: by xen-blkback on a loop device, with the tool stack's own script
served_by_kernel() {
    modprobe xen-blkback
    echo "format=raw,vdev=$2,access=${3:-w},backendtype=phy,target=$(losetup --find --show "$1")"
}

# served_by_qemu FILE DEVICE [r|w]
served_by_qemu() { echo "format=raw,vdev=$2,access=${3:-w},backendtype=qdisk,target=$(realpath "$1")"; }

# Mounts an ext4 file system on a disk of the machine, for what a RAM disk cannot do: direct I/O. needs: scratch
mount_scratch() {
    mkfs.ext4 -qF /dev/vda
    mkdir -p "$1"
    mount /dev/vda "$1"
}

# The guest reads what the image holds, and what it writes durably is in the image: carries GUEST DEVICE FILE
carries() {
    local name=$1 device=$2 file=$3
    equal 'what the guest reads' "$(run "$name" "md5sum </dev/$device | cut -d' ' -f1")" "$(md5_of "$file")"
    run "$name" "echo written | dd of=/dev/$device bs=512 seek=16000 conv=sync,fsync status=none"
    equal 'what the guest wrote' "$(dd if="$file" bs=512 skip=16000 count=1 status=none | head -c 7)" written
}

# attach GUEST SPEC: to a guest that runs, until it has the disk
attach() {
    local device
    device=$(sed -E 's/.*vdev=([^,]*).*/\1/' <<<"$2")
    xl block-attach "$1" "$2"
    within 10 run "$1" "test -b /dev/$device"
}

# detach GUEST DEVICE
detach() {
    xl block-detach "$1" "$2"
    within 10 run "$1" "! test -e /dev/$2"
}

# A node of a disk in XenStore, the guest's or dom0's, empty if there is none: frontend_node GUEST DEVICE KEY
frontend_node() { xenstore-read "/local/domain/$(xl domid "$1")/device/vbd/$(number_of "$2")/$3" 2>/dev/null || true; }

backend_node() { xenstore-read "/local/domain/0/backend/vbd/$(xl domid "$1")/$(number_of "$2")/$3" 2>/dev/null || true; }

# The number of a device from xvda to xvdp.
number_of() { echo $((51712 + 16 * ($(printf %d "'${1#xvd}") - 97))); }

# The command for a guest to write its disks, all at once, at random, in blocks of many sizes and with checksums, and to read
# them back: verifying SIZE (DEVICE | --OPTION)...
verifying() {
    local size=$1 word jobs=()
    for word in "${@:2}"; do
        case $word in
        --*) jobs+=("$word") ;;
        *) jobs+=("--name=$word --filename=/dev/$word") ;;
        esac
    done
    echo "fio --minimal --name=global --size=$size --rw=randwrite --bsrange=512-256k --bs_unaligned=0 --iodepth=16" \
        "--ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=64 --randrepeat=0 ${jobs[*]}" \
        ">/tmp/fio 2>&1 || { cat /tmp/fio; false; }"
}
