# Two guests share an image that neither may write.
# limit: 200

make_image disk.img 8M
sum=$(md5_of disk.img)
start_daemon
idle=$(daemon_footprint)
for name in one two; do
    create "$name" disk="$(served_by_us disk.img xvda r)"
    equal 'read-only' "$(run "$name" 'cat /sys/block/xvda/ro')" 1
    equal 'what the guest may discard' "$(run "$name" 'cat /sys/block/xvda/queue/discard_max_bytes')" 0
    fails run "$name" 'dd if=/dev/zero of=/dev/xvda bs=4k count=1 conv=fsync'
    fails run "$name" 'blkdiscard /dev/xvda'
done
for name in one two; do equal 'what the guest reads' "$(run "$name" 'md5sum </dev/xvda | cut -d" " -f1')" "$sum"; done
equal 'the image' "$(md5_of disk.img)" "$sum"
no_kernel_complaint one two
shut_down one
shut_down two
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
