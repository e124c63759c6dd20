# A stock guest on QEMU's qdisk: proves the bed, not the pair.
# limit: 60
# needs: qemu

make_image disk.img 32M
create one disk="$(served_by_qemu disk.img xvda)"
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
