# Our frontend in a PV guest against QEMU's backend.
# limit: 150
# needs: qemu

make_image disk.img 32M
create_without_driver one disk="$(served_by_qemu disk.img xvda)"
drive one '' '--ring-pages 1 --no-persistent'
no_kernel_complaint one
shut_down one
nothing_left
