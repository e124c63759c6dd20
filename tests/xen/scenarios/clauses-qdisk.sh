# The clauses about backends, against QEMU's.
# only: by name
# limit: 900
# needs: qemu clauses

put_clauses served_by_qemu
no_kernel_complaint one
as_recorded
shut_down one
nothing_left
