# Disks and guests go before the two ends have found each other: nothing is left mapped, and a guest beside them goes on.
# limit: 240

# paused NAME FILE: a guest whose processors have not run yet
paused() {
    cat >"/run/$1.cfg" <<END
name = "$1"
memory = 256
kernel = "/bed/vmlinux"
ramdisk = "/bed/ramdisk"
extra = "console=hvc0 quiet"
disk = [ '$(served_by_us "$2" xvda)' ]
END
    xl create -qp "/run/$1.cfg"
}

for image in one two; do make_image $image.img 8M; done
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_us one.img xvda)"
before=$(grants_in_use one)

say 'a disk of a guest that never ran'
paused two two.img
xl block-detach two xvda
xl block-attach two "$(served_by_us two.img xvda)"
xl destroy two

say 'a guest is destroyed at every stage of its start'
for delay in 0.5 2 4; do
    paused two two.img
    xl unpause two
    sleep $delay
    xl destroy two
done

say 'a disk is detached while the guest finds it'
for round in 1 2; do
    xl block-attach one "$(served_by_us two.img xvdb)"
    xl block-detach one xvdb
done
within 10 run one '! test -e /dev/xvdb'
equal 'disks of the guest' "$(xl block-list one | tail -n +2 | wc -l)" 1
equal 'grants in use' "$(grants_in_use one)" "$before"
carries one xvda one.img

say 'a device whose nodes are wrong'
bad=/local/domain/0/backend/vbd/$(xl domid one)/51760
xenstore-write "$bad/frontend" "/local/domain/$(xl domid one)/device/vbd/51760" "$bad/frontend-id" many "$bad/online" 1 \
    "$bad/mode" w "$bad/params" "$PWD/two.img" "$bad/state" 1
is_told() { xenstore-read "$bad/error" | grep frontend-id; }
within 5 is_told
xenstore-rm "$bad"
carries one xvda one.img
no_kernel_complaint one
shut_down one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
fails grep 'ERROR.*missing' /out/blkback.log
stop_daemon
