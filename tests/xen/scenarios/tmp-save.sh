# Whether this bed saves and restores a stock PVH guest at all.
# limit: 240

make_image disk.img 32M
start_daemon
free -m
create one pvh disk="$(served_by_us disk.img xvda)"
run one 'echo before; cat /proc/uptime'
say 'saving'
time xl -vvv save one /run/one.save 2>/out/save.log || { tail -30 /out/save.log; false; }
ls -l /run/one.save
xl list
say 'restoring'
time xl -vvv restore /run/one.save 2>/out/restore.log || { tail -30 /out/restore.log; false; }
xl list
within 60 run one 'echo after; cat /proc/uptime'
run one 'dmesg | tail -20; head -c 512 /dev/xvda | od -c | head -3'
carries one xvda disk.img
shut_down one
nothing_left
stop_daemon
