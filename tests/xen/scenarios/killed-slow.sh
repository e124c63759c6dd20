# The daemon is killed while its requests are on their way to a disk that takes three seconds for each: the next one waits for them
# before it does them again, dom0's kernel has nothing to complain of, and the guest's disk stays usable.
# limit: 180

modprobe null_blk nr_devices=1 memory_backed=1 gb=1 irqmode=2 completion_nsec=3000000000 queue_mode=2
cat >slow.toml <<'END'
[disk]
direct-io = true
END
for strategy in copy persistent; do
    say "$strategy"
    start_daemon --config slow.toml --strategy $strategy
    create one disk="$(served_by_us /dev/nullb0 xvda)"
    run one '{ dd if=/bin/busybox of=/dev/xvda bs=4k count=8 oflag=direct 2>/tmp/said; echo $? >/tmp/over; } &'
    for kill in 1 2; do
        sleep 4
        say "kill $kill"
        kill_daemon
        start_daemon --config slow.toml --strategy $strategy
    done
    grep 'again=[1-9]' /out/blkback.log
    within 60 run one 'test -s /tmp/over'
    run one 'cat /tmp/said; test "$(cat /tmp/over)" = 0'
    run -t 60 one 'head -c 32768 /bin/busybox >/tmp/wanted; dd if=/dev/xvda bs=32k count=1 iflag=direct 2>/dev/null | cmp - /tmp/wanted'
    no_kernel_complaint one
    shut_down one
    nothing_left
    stop_daemon
done
