# Images in dom0, and disks of guests in xl's notation.

# make_image FILE SIZE: the first 8 MiB random, the rest empty
make_image() {
    dd if=/dev/urandom of="$1" bs=1M count=8 status=none
    truncate -s "$2" "$1"
}

md5_of() { md5sum <"$1" | cut -d' ' -f1; }

# served_by_us FILE DEVICE [r|w]: through the daemon, by way of its hotplug script
served_by_us() { echo "format=raw,vdev=$2,access=${3:-w},backendtype=phy,script=block-blkback,target=$(realpath "$1")"; }

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
    run "$name" "echo written | dd of=/dev/$device bs=512 seek=60000 conv=sync,fsync status=none"
    equal 'what the guest wrote' "$(dd if="$file" bs=512 skip=60000 count=1 status=none | head -c 7)" written
}
