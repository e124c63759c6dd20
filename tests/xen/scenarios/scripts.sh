# Hotplug scripts that are late, and that fail, for disks of a guest whose driver is ready long before.
# limit: 240

cat >/etc/xen/scripts/block-late <<'END'
#!/bin/sh
while [ ! -e /run/late ]; do sleep 0.1; done
exec /etc/xen/scripts/block-blkback "$@"
END
cat >/etc/xen/scripts/block-broken <<'END'
#!/bin/sh
[ "$1" = add ] || exit 0
while [ ! -e /run/broken ]; do sleep 0.1; done
xenstore-write "$XENBUS_PATH/hotplug-error" 'out of order' "$XENBUS_PATH/hotplug-status" error
exit 1
END
chmod +x /etc/xen/scripts/block-*
for image in disk late broken; do make_image $image.img 8M; done
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_us disk.img xvda)"
grants=$(grants_in_use one)

# attach_by SCRIPT DEVICE: the file /run/SCRIPT lets the script go on
attach_by() {
    local spec
    spec=$(served_by_us "$1.img" "$2")
    xl block-attach one "${spec/block-blkback/block-$1}"
}

# waits DEVICE: the guest is ready, and the daemon is not
waits() { [ "$(frontend_node one "$1" state) $(backend_node one "$1" state)" = '3 2' ]; }

say 'a late script'
attach_by late xvdb &
attaching=$!
within 5 waits xvdb
sleep 1
waits xvdb
equal 'grants in use' "$(grants_in_use one)" "$grants"
touch /run/late
wait $attaching
within 10 run one 'test -b /dev/xvdb'
carries one xvdb late.img
detach one xvdb

say 'a script that fails'
attach_by broken xvdc 2>said &
attaching=$!
within 5 waits xvdc
touch /run/broken
fails wait $attaching
grep 'script: out of order' said
sleep 1
waits xvdc
equal 'grants in use' "$(grants_in_use one)" "$grants"
fails run one 'test -e /dev/xvdc'
carries one xvda disk.img
no_kernel_complaint one
xl destroy one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
