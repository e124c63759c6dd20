# A guest that is nothing but our frontend, as an unmodified `xl create` boots it: PVH, on our daemon.
# limit: 240
# needs: bare

start_daemon
idle=$(daemon_footprint)
make_image disk.img 32M
disk=disk=$(served_by_us disk.img xvda)

boot_bare one pvh 'verify extents=12' "$disk" | tee said
equal 'ways of carrying requests' "$(grep -c '^verified 12 extents' said)" 5
boot_bare one pvh 'soak runtime=5 queues=2 persistent=no' "$disk" | tee said
grep -E '^soaked [1-9][0-9]* rounds: [1-9][0-9]* reads, [1-9][0-9]* writes, [1-9][0-9]* flushes, [1-9][0-9]* discards' said
boot_bare one pvh sum "$disk" | tee said
told_sum disk.img <said
nothing_left

say 'a panic is told, and ends the guest as crashed'
fails boot_bare one pvh panic "$disk" | tee said
grep 'as ordered' said
grep -q 'reason code 3' /var/log/xen/xl-one.log
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
