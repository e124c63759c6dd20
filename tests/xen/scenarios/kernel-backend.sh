# A stock guest on the kernel's own backend: proves the bed, not the pair.
# limit: 60

make_image disk.img 32M
sum=$(md5_of disk.img)
create one disk="$(served_by_kernel disk.img xvda)"
equal 'what the guest reads' "$(run one 'md5sum </dev/xvda | cut -d" " -f1')" "$sum"
run one 'echo written | dd of=/dev/xvda bs=512 seek=60000 conv=sync,fsync status=none'
equal 'what the guest wrote' "$(dd if=disk.img bs=512 skip=60000 count=1 status=none | head -c 7)" written
no_kernel_complaint one
shut_down one
nothing_left
