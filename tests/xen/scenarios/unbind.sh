# The guest's driver lets a disk go while it reads from it, several times: nothing of it is left, and the disk comes back anew.
# limit: 300

make_image disk.img 8M
make_image other.img 8M
start_daemon
create one disk="$(served_by_us other.img xvdb)"
idle=$(daemon_footprint)
grants=$(grants_in_use one)
is_closed() { [ "$(frontend_node one xvda state) $(backend_node one xvda state)" = '6 6' ]; }

for round in 1 2; do
    say "round $round"
    attach one "$(served_by_us disk.img xvda)"
    carries one xvda disk.img
    run one 'fio --name=load --filename=/dev/xvda --rw=randread --bsrange=4k-64k --iodepth=16 --ioengine=libaio --direct=1 \
        --time_based --runtime=60 >/tmp/fio 2>&1 & sleep 2; echo vbd-51712 >/sys/bus/xen/drivers/vbd/unbind'
    within 5 is_closed
    equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
    equal 'grants in use' "$(grants_in_use one)" "$grants"
    # Linux has not written 1 again, so that this leads nowhere, with any backend; it is no reason to stumble either.
    run one 'echo vbd-51712 >/sys/bus/xen/drivers/vbd/bind'
    is_closed
    detach one xvda
done
carries one xvdb other.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
