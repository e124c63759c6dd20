# ext4 and XFS are made, mounted, filled, trimmed, checked and read back on disks of ours.
# limit: 180
# needs: scratch

mount_scratch /images
truncate -s 512M /images/ext4.img /images/xfs.img
start_daemon
create one memory=384 disk="$(served_by_us /images/ext4.img xvda)" disk="$(served_by_us /images/xfs.img xvdb)"

# check_file_system DEVICE MKFS FSCK
check_file_system() {
    run one "$2 /dev/$1 && mkdir -p /mnt/$1 && mount /dev/$1 /mnt/$1"
    run one "dd if=/dev/urandom of=/mnt/$1/file bs=1M count=16 status=none && md5sum </mnt/$1/file >/tmp/sum && cp -r /usr /mnt/$1/"
    run one "sync && rm -r /mnt/$1/usr && fstrim -v /mnt/$1 && umount /mnt/$1 && $3 /dev/$1"
    run one "mount /dev/$1 /mnt/$1 && md5sum </mnt/$1/file | cmp - /tmp/sum && umount /mnt/$1"
}

check_file_system xvda 'mkfs.ext4 -qF' 'e2fsck -fn'
run one 'modprobe xfs'
check_file_system xvdb 'mkfs.xfs -qf' 'xfs_repair -n'
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
