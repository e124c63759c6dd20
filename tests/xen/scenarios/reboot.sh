# A guest reboots while it writes, once as told by xl and once of itself, and comes back with its data.
# limit: 240

by_itself() { run -t 1 one 'reboot' || true; }

make_image disk.img 8M
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_us disk.img xvda)"
for how in 'xl reboot one' by_itself; do
    carries one xvda disk.img
    run one 'while :; do dd if=/dev/zero of=/dev/xvda bs=64k count=100 seek=100 oflag=direct 2>/dev/null; done &'
    reboots one $how
done
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
