# A stock guest on the kernel's own backend: proves the bed, not the pair.
# limit: 60

make_image disk.img 32M
create one disk="$(served_by_kernel disk.img xvda)"
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
