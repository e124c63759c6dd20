# A guest with four processors, four queues and rings of sixteen pages.
# limit: 400

make_image disk.img 48M
start_daemon --workers 4
idle=$(daemon_footprint)
# Where grants persist, Linux' driver takes a page for each segment that its rings could hold: 264 MiB here.
create one vcpus=4 memory=1024 cmdline='xen_blkfront.max_queues=4 xen_blkfront.max_ring_page_order=4' \
    disk="$(served_by_us disk.img xvda)"
equal 'queues' "$(frontend_node one xvda multi-queue-num-queues)" 4
equal 'pages of a ring, as a power of two' "$(frontend_node one xvda ring-page-order)" 4
for queue in 0 1 2 3; do [ -n "$(frontend_node one xvda "queue-$queue/ring-ref15")" ]; done
equal 'queues in the guest' "$(run one 'ls /sys/block/xvda/mq | wc -l')" 4
run -t 120 one "$(verifying 8M xvda --numjobs=4 --offset_increment=8M --cpus_allowed=0-3 --cpus_allowed_policy=split \
    --iodepth=64)"
equal 'queues that were used' "$(run one 'awk "/blkif/ && \$2 + \$3 + \$4 + \$5 > 10" /proc/interrupts | wc -l')" 4
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
