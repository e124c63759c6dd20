# Images that are used without the page cache: each flush of the guest is one of the machine's disk, and each read too.
# limit: 300
# needs: scratch

mount_scratch /images
cat >blkback.toml <<END
[disk]
direct-io = true
[disks."*/xvdb"]
strategy = "direct"
END
make_image /images/copy.img 16M
make_image /images/direct.img 16M
sync
start_daemon --config blkback.toml
create one disk="$(served_by_us /images/copy.img xvda)" disk="direct-io-safe,$(served_by_us /images/direct.img xvdb)"
for device in xvda xvdb; do equal 'persistent grants' "$(backend_node one $device feature-persistent)" ''; done

# done_by_disk FIELD: of diskstats; 3 is sectors read, 16 is flushes
done_by_disk() { awk -v field=$(($1 + 3)) '$3 == "vda" { print $field }' /proc/diskstats; }

# flushed_by_guest DEVICE: flushes of its disk that the guest counts
flushed_by_guest() { run one "awk '\$3 == \"$1\" { print \$19 }' /proc/diskstats"; }

for device in xvda xvdb; do
    flushes=$(done_by_disk 16)
    asked=$(flushed_by_guest $device)
    # After each of 100 blocks but the last.
    run one "fio --minimal --name=fsync --filename=/dev/$device --rw=write --bs=4k --size=400k --fsync=1 >/tmp/fio"
    asked=$(($(flushed_by_guest $device) - asked))
    [ $asked -ge 99 ]
    [ $(($(done_by_disk 16) - flushes)) -ge $asked ]
    sectors=$(done_by_disk 3)
    for round in 1 2; do run one "dd if=/dev/$device of=/dev/null bs=1M count=4 iflag=direct status=none"; done
    [ $(($(done_by_disk 3) - sectors)) -ge 16384 ]
    run one "$(verifying 8M $device)"
done
carries one xvda /images/copy.img
carries one xvdb /images/direct.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
