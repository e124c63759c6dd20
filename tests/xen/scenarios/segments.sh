# Large requests: a stock guest names their pages in indirect descriptors if they are offered, and sends smaller ones if not.
# limit: 200

cat >blkback.toml <<END
[disks."*/xvdb"]
segments = "direct"
END
make_image large.img 8M
make_image small.img 8M
start_daemon --config blkback.toml
create one disk="$(served_by_us large.img xvda)" disk="$(served_by_us small.img xvdb)"
equal 'offered' "$(backend_node one xvda feature-max-indirect-segments)" 256
equal 'offered' "$(backend_node one xvdb feature-max-indirect-segments)" ''

# requests_for DEVICE OPERATION DD-ARGUMENTS: how many requests 8 MiB are, from diskstats: field 1 counts reads, 5 writes
requests_for() {
    local device=$1 field=$2 how=$3
    run one "count() { awk -v f=$((field + 3)) '\$3 == \"$device\" { print \$f }' /proc/diskstats; }
        before=\$(count) && dd $how bs=1M count=8 status=none && echo \$((\$(count) - before))"
}

# The guest's own limit is 32 pages, 128 KiB; without descriptors it is 11 pages, 44 KiB, or 24 requests a MiB.
for disk in 'xvda 32 64' 'xvdb 11 192'; do
    read -r device pages requests <<<"$disk"
    equal 'pages in a request' "$(run one "cat /sys/block/$device/queue/max_segments")" "$pages"
    equal 'reads' "$(requests_for "$device" 1 "if=/dev/$device of=/dev/null iflag=direct")" "$requests"
    equal 'writes' "$(requests_for "$device" 5 "if=/dev/urandom of=/dev/$device oflag=direct")" "$requests"
done
run one "$(verifying 6M xvda xvdb)"
carries one xvda large.img
carries one xvdb small.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
