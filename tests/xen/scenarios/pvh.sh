# A PVH guest with two processors on a disk of ours.
# limit: 180

make_image disk.img 32M
start_daemon
create one pvh vcpus=2 disk="$(served_by_us disk.img xvda)"
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
