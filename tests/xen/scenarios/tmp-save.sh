# limit: 400
# needs: bare

start_daemon
make_image disk.img 32M
start_bare one pvh 'soak runtime=20 queues=2 ring-pages=4' "disk=$(served_by_us disk.img xvda)"
within 20 has_told one '^connection' 1
xl list -l one | grep -i mem
xl info | grep -i mem
xenstore-ls -f "/local/domain/$(xl domid one)/memory"
xl save one /run/one.save >/dev/null 2>&1
xl info | grep -i free_mem
xl -vvv restore /run/one.save >/out/restore.log 2>&1 || tail -40 /out/restore.log
xl destroy one || true
xl list
sed -e 's/memory = 32/memory = 36/' /run/one.cfg >/run/two.cfg
xl -vvv restore /run/two.cfg /run/one.save >/out/restore2.log 2>&1 || tail -40 /out/restore2.log
xl list
sleep 10
told_by_bare one
xl destroy one || true
create two pvh disk="$(served_by_us disk.img xvda)"
xl save two /run/two.save >/dev/null 2>&1
xl restore /run/two.save >/out/restore3.log 2>&1 || tail -40 /out/restore3.log
xl list
within 60 run two 'echo after; cat /proc/uptime; dmesg | tail'
