# A guest that is nothing but our frontend, as an unmodified `xl create` boots it: PV, on our daemon.
# limit: 240
# needs: bare

start_daemon
idle=$(daemon_footprint)
make_image disk.img 32M
disk=disk=$(served_by_us disk.img xvda)

boot_bare one pv info "$disk" | tee said
grep '^size 33554432 bytes in sectors of 512' said
nothing_left

boot_bare one pv 'verify extents=12' "$disk" | tee said
equal 'ways of carrying requests' "$(grep -c '^verified 12 extents' said)" 5
for way in ' direct' ' blocks' ' indirect' 'x86_64-abi, 2 queue(s) of 4 ring page(s)' persistent per-request; do
    grep -qF "$way" said
done
boot_bare one pv 'soak runtime=5 queues=2' "$disk" | tee said
grep -E '^soaked [1-9][0-9]* rounds: [1-9][0-9]* reads, [1-9][0-9]* writes, [1-9][0-9]* flushes, [1-9][0-9]* discards' said
boot_bare one pv sum "$disk" | tee said
told_sum disk.img <said
nothing_left

say 'without a disk, and with a command line that makes no sense'
fails boot_bare one pv info | tee said
grep '^failed: no disk in device/vbd' said
fails boot_bare one pv 'verify all' | tee said
grep "^failed: what is 'all' on the command line?" said

say 'a panic is told, and ends the guest as crashed'
fails boot_bare one pv panic "$disk" | tee said
grep 'panicked at' said
grep 'as ordered' said
grep -q 'reason code 3' /var/log/xen/xl-one.log
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
