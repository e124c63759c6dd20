# The clauses about backends, against QEMU's.
# limit: 600
# needs: qemu clauses

mapfile -t disks < <(blank_disks served_by_qemu)
create_without_driver one "${disks[@]}"
put_clauses one
no_kernel_complaint one
as_recorded
shut_down one
nothing_left
