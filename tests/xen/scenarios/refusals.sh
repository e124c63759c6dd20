# What cannot be served is refused in words, and what is served goes on.
# limit: 90

start_daemon
fails blkback 2>second
grep "another blkback is running, process $daemon" second
make_image disk.img 32M
create one disk="$(served_by_us disk.img xvda)"
fails xl block-attach one 'format=raw,vdev=xvdb,access=w,backendtype=phy,script=block-blkback,target=/nowhere/disk.img' 2>said
grep 'no such image: /nowhere/disk.img' said
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
