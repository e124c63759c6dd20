# Both ends ours: the tool in a PV guest, the daemon in dom0.
# limit: 150

start_daemon
make_image disk.img 32M
create_without_driver one disk="$(served_by_us disk.img xvda)"
drive one '' '--segments direct' '--segments indirect' '--ring-pages 16' '--ring-pages 1 --no-persistent' '--queues 2'
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
