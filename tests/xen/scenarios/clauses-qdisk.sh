# The clauses about backends, against QEMU's.
# limit: 900
# needs: qemu clauses

put_clauses served_by_qemu
no_guest_complaint one
as_recorded
shut_down one
# Guests over whom QEMU hung stay as long as it has their pages.
pkill -9 qemu-system || say 'no QEMU hung'
nothing_left
