# A guest's disks come from a driver domain, where the daemon does the part of the tool stack and its scripts too.
# limit: 300

# served_by_driver FILE DEVICE: a file in the driver domain
served_by_driver() { echo "format=raw,vdev=$2,access=w,backend=driver,backendtype=phy,target=$1"; }

# A node of guest one's disk: node DEVICE KEY
node() { xenstore-read "/local/domain/$(xl domid driver)/backend/vbd/$(xl domid one)/$(number_of "$1")/$2"; }

# The guest and the driver domain have the same contents in mind: agree DEVICE FILE
agree() {
    equal "what $1 holds" "$(run one "md5sum </dev/$1 | cut -d' ' -f1")" "$(run driver "md5sum <$2 | cut -d' ' -f1")"
}

# How many nodes a domain owns.
nodes_of() { xenstore-ls -fp | grep -c "   (n$(xl domid "$1")[,)]"; }

# The daemon's log, for whom this scenario fails.
keep_log() { run driver 'cat /tmp/log' >/out/driver-domain.log; }

# no_disks: of the guest, in the driver domain's directory
no_disks() { ! xenstore-ls -f "/local/domain/$(xl domid driver)/backend" 2>/dev/null | grep -E '/vbd/[0-9]+/[0-9]+'; }

create driver driver-domain memory=384
run driver 'for name in a b; do dd if=/dev/urandom of=/tmp/$name.img bs=1M count=8 status=none; done'
run driver 'blkback --images /tmp 2>/tmp/log & echo $! >/tmp/pid'
within 10 run driver 'grep " ready " /tmp/log'
create one disk="$(served_by_driver /tmp/a.img xvda)"
equal 'hotplug-status' "$(node xvda hotplug-status)" connected
agree xvda /tmp/a.img
run one 'echo written | dd of=/dev/xvda bs=512 seek=16000 conv=sync,fsync status=none'
agree xvda /tmp/a.img

say 'a second disk comes and goes'
attach one "$(served_by_driver /tmp/b.img xvdb)"
agree xvdb /tmp/b.img
detach one xvdb
fails node xvdb state

say 'what cannot be served'
fails xl block-attach one "$(served_by_driver /tmp/none.img xvdb)"
node xvdb error | grep 'cannot find image /tmp/none.img'
xl block-detach one xvdb
fails node xvdb state

say 'no room in XenStore'
xenstore-control quota set nodes $(($(nodes_of driver) + 15))
fails xl block-attach one "$(served_by_driver /tmp/b.img xvdb)"
equal 'state' "$(node xvdb state)" 1
xl block-detach one xvdb
agree xvda /tmp/a.img
xenstore-control quota set nodes 1000
attach one "$(served_by_driver /tmp/b.img xvdb)"
detach one xvdb

say 'the guest is destroyed while it writes'
run one 'while :; do dd if=/dev/zero of=/dev/xvda bs=64k count=100 oflag=direct 2>/dev/null; done &'
sleep 1
xl destroy one
no_disks
equal 'what is mapped' "$(run driver 'grep -c gntdev /proc/$(cut -d" " -f1 /proc/$(cat /tmp/pid)/task/*/children)/maps || true')" 0
no_kernel_complaint driver
keep_log
grep 'ERROR.*ENOSPC' /out/driver-domain.log
run driver 'kill $(cat /tmp/pid)'
shut_down driver
nothing_left
