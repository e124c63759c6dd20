# The route of Xen 4.19 and later: `backendtype=tap` files disks under vbd3, where the kernel's backend does not look. Xen 4.17's
# xl has no such disks, so their nodes are made here as libxl of 4.19 makes them. The kernel's backend runs beside it.
# limit: 120

# make_vbd3 GUEST FILE: the nodes of xvda. What is made in a directory has its permissions from the start.
make_vbd3() {
    local domain
    domain=$(xl domid "$1")
    frontend=/local/domain/$domain/device/vbd/51712
    backend=/local/domain/0/backend/vbd3/$domain/51712
    make_directory "$backend" n0 "r$domain"
    make_directory "$frontend" "n$domain" r0
    xenstore-write "$backend/frontend" "$frontend" "$backend/params" "aio:$(realpath "$2")" \
        "$backend/script" /etc/xen/scripts/block-blkback "$backend/frontend-id" "$domain" "$backend/online" 1 \
        "$backend/removable" 0 "$backend/bootable" 1 "$backend/dev" xvda "$backend/type" vbd3 "$backend/mode" w \
        "$backend/device-type" disk "$backend/discard-enable" 1 "$backend/multi-queue-max-queues" 1 "$backend/state" 1
    xenstore-write "$frontend/backend" "$backend" "$frontend/backend-id" 0 "$frontend/virtual-device" 51712 \
        "$frontend/device-type" disk "$frontend/trusted" 1 "$frontend/state" 1
}

# make_directory PATH PERMISSION...
make_directory() {
    xenstore-write "$1" ''
    xenstore-chmod "$@"
}

# run_script add|remove: as libxl does
run_script() {
    XENBUS_PATH=${backend#/local/domain/0/} XENBUS_TYPE=vbd3 XENBUS_BASE_PATH=backend script=block-blkback \
        /etc/xen/scripts/block-blkback "$1"
}

# backend_is STATE
backend_is() { [ "$(xenstore-read "$backend/state")" = "$1" ]; }

cat >blkback.toml <<'END'
[daemon]
kinds = ["vbd3"]
END
make_image disk.img 8M
make_image other.img 8M
start_daemon --config blkback.toml
idle=$(daemon_footprint)
create one disk="$(served_by_kernel other.img xvdb)"
grants=$(grants_in_use one)

make_vbd3 one disk.img
within 10 backend_is 2
run_script add
equal 'hotplug-status' "$(xenstore-read "$backend/hotplug-status")" connected
within 10 run one 'test -b /dev/xvda'
equal 'state' "$(xenstore-read "$backend/state")" 4
carries one xvda disk.img

say 'detaching'
xenstore-write "$backend/online" 0 "$backend/state" 5
within 10 backend_is 6
run_script remove
xenstore-rm "$frontend"
xenstore-rm "${backend%/*}"
within 10 run one '! test -e /dev/xvda'
equal 'grants in use' "$(grants_in_use one)" "$grants"
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
carries one xvdb other.img
no_kernel_complaint one
shut_down one
losetup -D
nothing_left
stop_daemon
