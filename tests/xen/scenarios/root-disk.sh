# A guest that boots from our disk: its root file system is on it, and what it writes there is there after the next boot.
# limit: 150
# needs: scratch

mount_scratch /images
mkdir /images/root
(cd /images/root && busybox cpio -id </bed/guest.cpio && touch is-root-disk) 2>/dev/null
mke2fs -qF -t ext4 -d /images/root /images/root.img 256M
start_daemon
for boot in 1 2; do
    create one disk="$(served_by_us /images/root.img xvda)" cmdline='bed.root=/dev/xvda'
    equal 'root' "$(run one 'awk "\$2 == \"/\" { print \$1 }" /proc/mounts | tail -1')" /dev/xvda
    run one 'echo booted >>/log; sync'
    equal 'boots' "$(run one 'wc -l </log')" $boot
    no_kernel_complaint one
    shut_down one
done
e2fsck -fn /images/root.img
nothing_left
stop_daemon
