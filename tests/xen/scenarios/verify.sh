# fio writes blocks of many sizes at random with checksums, and reads them back.
# limit: 180
# needs: scratch

mount_scratch /images
truncate -s 256M /images/disk.img
start_daemon
create one memory=384 disk="$(served_by_us /images/disk.img xvda)"
run -t 120 one 'fio --name=verify --filename=/dev/xvda --size=48M --rw=randwrite --bsrange=512-256k --bs_unaligned=0 --iodepth=16 \
    --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=64 --randrepeat=0'
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
