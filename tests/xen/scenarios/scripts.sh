# Hotplug scripts that are late, and that fail, for disks of a guest whose driver is ready long before.
# limit: 150

cat >/etc/xen/scripts/block-late <<'END'
#!/bin/sh
sleep 3
exec /etc/xen/scripts/block-blkback "$@"
END
cat >/etc/xen/scripts/block-broken <<'END'
#!/bin/sh
[ "$1" = add ] || exit 0
sleep 3
xenstore-write "$XENBUS_PATH/hotplug-error" 'out of order' "$XENBUS_PATH/hotplug-status" error
exit 1
END
chmod +x /etc/xen/scripts/block-*
for image in disk late broken; do make_image $image.img 8M; done
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_us disk.img xvda)"
grants=$(grants_in_use one)

say 'a late script'
late=$(served_by_us late.img xvdb)
xl block-attach one "${late/block-blkback/block-late}" &
attaching=$!
frontend_waits() { [ "$(frontend_node one xvdb state)" = 3 ]; }
within 5 frontend_waits
for look in 1 2 3; do
    equal 'script' "$(backend_node one xvdb hotplug-status)" ''
    equal 'backend' "$(backend_node one xvdb state)" 2
    sleep 0.3
done
wait $attaching
within 10 run one 'test -b /dev/xvdb'
carries one xvdb late.img
detach one xvdb

say 'a script that fails'
broken=$(served_by_us broken.img xvdc)
fails xl block-attach one "${broken/block-blkback/block-broken}" 2>said
grep 'out of order' said
equal 'frontend' "$(frontend_node one xvdc state)" 3
sleep 1
equal 'backend' "$(backend_node one xvdc state)" 2
equal 'grants in use' "$(grants_in_use one)" "$grants"
fails run one 'test -e /dev/xvdc'
carries one xvda disk.img
no_kernel_complaint one
xl destroy one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
