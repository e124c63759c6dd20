# The clauses about backends, against the kernel's.
# limit: 600
# needs: clauses

# As many queues as clauses have; by itself it offers one for each processor.
modprobe xen-blkback max_queues=4
mapfile -t disks < <(blank_disks served_by_kernel)
create_without_driver one "${disks[@]}"
put_clauses one
no_kernel_complaint one
as_recorded
shut_down one
nothing_left
