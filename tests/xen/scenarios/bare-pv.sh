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
nothing_left

say 'without a disk, and with a command line that makes no sense'
fails boot_bare one pv info | tee said
grep '^failed: no disk in device/vbd' said
fails boot_bare one pv 'verify depth=1' | tee said
grep "^failed: what is 'depth=1' on the command line?" said

say 'a panic is told, and ends the guest as crashed'
fails boot_bare one pv panic "$disk" | tee said
grep 'panicked at' said
grep 'as ordered' said
grep -q 'reason code 3' /var/log/xen/xl-one.log
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
