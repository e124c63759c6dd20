# A PVH guest with two processors on a disk of ours.
# limit: 180

make_image disk.img 32M
sum=$(md5_of disk.img)
start_daemon
create one pvh vcpus=2 disk="$(served_by_us disk.img xvda)"
equal 'what the guest reads' "$(run one 'md5sum </dev/xvda | cut -d" " -f1')" "$sum"
run one 'echo written | dd of=/dev/xvda bs=512 seek=60000 conv=sync,fsync status=none'
equal 'what the guest wrote' "$(dd if=disk.img bs=512 skip=60000 count=1 status=none | head -c 7)" written
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
