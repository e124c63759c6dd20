# The clauses about backends, against QEMU's. By name, as what a QEMU does that is led astray is not always the same.
# only: by name
# limit: 900
# needs: qemu clauses

put_clauses served_by_qemu
no_guest_complaint one
as_recorded
shut_down one
# Guests over whom QEMU hung stay as long as it has their pages.
pkill -9 qemu-system || say 'no QEMU hung'
nothing_left
