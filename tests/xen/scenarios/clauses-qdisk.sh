# The clauses about backends, against QEMU's.
# limit: 900
# needs: qemu clauses

put_clauses served_by_qemu
no_guest_complaint one
as_recorded
shut_down one
nothing_left
