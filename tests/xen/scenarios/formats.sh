# A stock guest on a qcow2 image: a file system, the daemon killed amid writes, the disk grown; and media changed under the guest.
# needs: qcow2
# limit: 300

cp /bed/disk.qcow2 disk.qcow2
for image in one two three; do make_image "$image.img" 8M; done
truncate -s 16M three.img
start_daemon
create one disk="$(served_by_us one.img xvda)"
domain=$(xl domid one)

say 'a qcow2 image'
attach one "$(served_by_us qcow2:disk.qcow2 xvdb)"
equal 'its size in the guest' "$(run one 'cat /sys/block/xvdb/size')" 131072
blkctl show "$domain/xvdb" | grep 'qcow2:.*disk.qcow2'
run one 'mkfs.ext4 -q /dev/xvdb && mount /dev/xvdb /mnt && dd if=/dev/urandom of=/mnt/a bs=1M count=8 conv=fsync status=none'
sum=$(run one 'md5sum </mnt/a')

say 'killed amid writes'
run one '(dd if=/dev/urandom of=/mnt/b bs=64k count=256 conv=fsync status=none; cp /mnt/b /mnt/c; sync; echo written >/tmp/written) >/dev/null 2>&1 &'
sleep 0.5
kill_daemon
start_daemon
within 10 grep 'going on where an earlier daemon was killed' /out/blkback.log
within 60 run one 'test -e /tmp/written'
run one 'cmp /mnt/b /mnt/c'
equal 'what was written before' "$(run one 'md5sum </mnt/a')" "$sum"

say 'grown'
run one 'umount /mnt'
blkctl resize "$domain/xvdb" 128M
within 10 run one 'test "$(cat /sys/block/xvdb/size)" = 262144'
run one 'e2fsck -fp /dev/xvdb && resize2fs /dev/xvdb && mount /dev/xvdb /mnt'
equal 'what was written before' "$(run one 'md5sum </mnt/a')" "$sum"
run one 'umount /mnt && e2fsck -fn /dev/xvdb'
detach one xvdb
# The host looks at it once more.
cp disk.qcow2 /out/

say 'media'
attach one "devtype=cdrom,$(served_by_us two.img xvdc r)"
reads_cd() {
    within 10 run one "test \"\$(cat /sys/block/xvdc/size)\" = $(($(stat -c %s "$1") / 512))"
    run one 'blockdev --flushbufs /dev/xvdc'
    equal 'what the guest reads' "$(run one "md5sum </dev/xvdc | cut -d' ' -f1")" "$(md5_of "$1")"
}
reads_cd two.img
blkctl insert "$domain/xvdc" "$PWD/three.img"
reads_cd three.img
blkctl eject "$domain/xvdc"
within 10 run one 'test "$(cat /sys/block/xvdc/size)" = 0'
blkctl insert "$domain/xvdc" "$PWD/two.img"
reads_cd two.img
carries one xvda one.img
no_kernel_complaint one
shut_down one
nothing_left
