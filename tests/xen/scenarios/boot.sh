# dom0 comes up with all that a backend needs, and the tool stack works.
# limit: 30

equal 'domains' "$(xl list | awk 'NR == 2 { print $1 }')" Domain-0
for device in gntdev gntalloc evtchn xenbus; do test -c "/dev/xen/$device"; done
test -S /run/xenstored/socket
fails test -e /sys/module/xen_blkback
nothing_left
no_kernel_complaint
