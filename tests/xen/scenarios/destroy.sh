# Guests are destroyed while they write: no zombie, no mapping is left, and the guest beside them does not notice.
# limit: 150

make_image one.img 64M
make_image two.img 64M
start_daemon
idle=$(daemon_footprint)
create neighbour disk="$(served_by_us two.img xvda)"
for round in 1 2; do
    say "round $round"
    create one disk="$(served_by_us one.img xvda)"
    run one 'fio --name=load --filename=/dev/xvda --rw=randwrite --bsrange=4k-64k --iodepth=16 --ioengine=libaio --direct=1 \
        --time_based --runtime=60 >/dev/null 2>&1 & sleep 3; grep xvda /proc/diskstats'
    xl destroy one
    within 10 is_gone one
done
equal "the neighbour's disk" "$(run neighbour 'md5sum </dev/xvda | cut -d" " -f1')" "$(md5_of two.img)"
no_kernel_complaint neighbour
shut_down neighbour
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
