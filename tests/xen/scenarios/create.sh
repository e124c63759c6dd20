# An unmodified `xl create` with a disk of ours: the guest reads, writes, flushes and shuts down, and nothing is left.
# limit: 90

make_image disk.img 32M
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_us disk.img xvda)"
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
