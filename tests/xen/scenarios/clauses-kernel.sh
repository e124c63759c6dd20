# The clauses about backends, against the kernel's.
# limit: 900
# needs: clauses

# As many queues as clauses have; by itself it offers one for each processor.
modprobe xen-blkback max_queues=4
put_clauses served_by_kernel
# This backend warns in dom0's log of every ring that it cannot map.
no_guest_complaint one
as_recorded
shut_down one
nothing_left
