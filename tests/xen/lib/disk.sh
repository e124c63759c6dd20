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
