# Our frontend in a PV guest against the kernel's backend, by every way of carrying requests that both know.
# limit: 150

make_image disk.img 32M
create_without_driver one disk="$(served_by_kernel disk.img xvda)"
drive one '' '--segments direct' '--ring-pages 1 --no-persistent' '--queues 2'
no_kernel_complaint one
shut_down one
nothing_left
