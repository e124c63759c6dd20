# A guest rewrites the nodes of its disk as fast as it can: another goes on, disks come and go, and the daemon's memory stays.
# limit: 300

# Kilobytes of memory that the daemon has.
memory() { awk '/VmRSS/ { print $2 }' "/proc/$(serving)/status"; }

for image in one two more; do make_image $image.img 8M; done
start_daemon
create one disk="$(served_by_us one.img xvda)"
create two disk="$(served_by_us two.img xvda)"
run two 'dd if=/dev/xvda of=/dev/null bs=64k status=none'
before=$(memory)
run two 'while :; do
    for state in 4 5; do xenstore-write device/vbd/51712/event-channel $RANDOM device/vbd/51712/state $state; done
done >/dev/null 2>&1 & echo $! >/tmp/storm; sleep 1'
carries one xvda one.img
attach one "$(served_by_us more.img xvdb)"
detach one xvdb
run two 'kill $(cat /tmp/storm)'
after=$(memory)
say "memory: $before kB before, $after kB after"
[ "$after" -lt $((before + 2048)) ]
xl destroy two
carries one xvda one.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
