# Images grow while the guest has file systems of them mounted: it sees the new sizes at once, and the file systems follow.
# limit: 300
# needs: scratch

mount_scratch /images
truncate -s 64M /images/ext4.img
truncate -s 320M /images/xfs.img
start_daemon
create one memory=384 disk="$(served_by_us /images/ext4.img xvda)" disk="$(served_by_us /images/xfs.img xvdb)"
run one 'modprobe xfs'

# fill DEVICE MKFS
fill() {
    run one "$2 /dev/$1 && mkdir -p /mnt/$1 && mount /dev/$1 /mnt/$1"
    run one "dd if=/dev/urandom of=/mnt/$1/file bs=1M count=8 status=none && sync && md5sum </mnt/$1/file >/tmp/$1"
}

fill xvda 'mkfs.ext4 -qF'
fill xvdb 'mkfs.xfs -qf'
truncate -s 128M /images/ext4.img
truncate -s 512M /images/xfs.img
kill -HUP "$daemon"
run -t 20 one 'until test "$(cat /sys/block/xvd[ab]/size | xargs)" = "262144 1048576"; do sleep 0.2; done'

# has_grown DEVICE GROW FSCK KIB: more than it can have had before
has_grown() {
    run one "$2 && test \$(df -k /mnt/$1 | awk 'NR == 2 { print \$2 }') -gt $4 && md5sum </mnt/$1/file | cmp - /tmp/$1"
    run one "cp /mnt/$1/file /mnt/$1/copy && umount /mnt/$1 && $3 /dev/$1"
    run one "mount /dev/$1 /mnt/$1 && for file in file copy; do md5sum </mnt/$1/\$file | cmp - /tmp/$1 || exit; done &&
        umount /mnt/$1"
}

has_grown xvda 'resize2fs /dev/xvda' 'e2fsck -fn' 65536
has_grown xvdb 'xfs_growfs /mnt/xvdb' 'xfs_repair -n' 327680
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
