# The daemon is killed twenty times while two stock guests, PV and PVH, write and read back, and a next one goes on where it was:
# the guests see pauses, and nothing else. In the end another program takes its place without being killed.
# limit: 300
# needs: scratch

mount_scratch /images
truncate -s 64M /images/pv.img /images/pvh.img
start_daemon
create pv disk="$(served_by_us /images/pv.img xvda)"
create pvh pvh disk="$(served_by_us /images/pvh.img xvda)"
idle=$(daemon_footprint)
for guest in pv pvh; do
    run $guest '{ fio --name=verify --filename=/dev/xvda --rw=randwrite --bsrange=4k-64k --iodepth=16 --ioengine=libaio --direct=1 \
        --time_based --runtime=60 --verify=crc32c --verify_backlog=64 --verify_fatal=1 --randrepeat=0 --minimal \
        >/tmp/fio 2>&1 </dev/null; echo $? >/tmp/over; } &'
done
for kill in {1..20}; do
    sleep 0.$((RANDOM % 10))
    say "kill $kill"
    kill_daemon
    start_daemon
    sleep 1
done
say 'an upgrade'
cp "$(type -P blkback)" /images/next
/images/next upgrade
for guest in pv pvh; do
    within 90 run $guest 'test -s /tmp/over'
    run $guest 'cat /tmp/fio; test "$(cat /tmp/over)" = 0'
    equal "errors that $guest's driver tells of" "$(run $guest 'dmesg | grep -ciE "xvda.*(error|disabled|response)" || true')" 0
done
say "$(grep -c 'earlier daemon was killed' /out/blkback.log) rings were taken over"
[ "$(sed -n 's/.* again=\([0-9]*\).*/\1/p' /out/blkback.log | sort -n | tail -n 1)" -gt 0 ]
no_kernel_complaint pv pvh
shut_down pv
shut_down pvh
nothing_left
equal 'logs of what is under way' "$(ls /run/blkback/inflight)" ''
stop_daemon
