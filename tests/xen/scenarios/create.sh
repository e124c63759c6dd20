# An unmodified `xl create` with a disk of ours: the guest reads, writes, flushes and shuts down, and nothing is left.
# limit: 90

make_image disk.img 32M
sum=$(md5_of disk.img)
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_us disk.img xvda)"
equal 'what the guest reads' "$(run one 'md5sum </dev/xvda | cut -d" " -f1')" "$sum"
run one 'echo written | dd of=/dev/xvda bs=512 seek=60000 conv=sync,fsync status=none'
equal 'what the guest wrote' "$(dd if=disk.img bs=512 skip=60000 count=1 status=none | head -c 7)" written
no_kernel_complaint one
shut_down one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
