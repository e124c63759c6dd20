# A guest has one disk of QEMU's and one of ours, both busy at the same time.
# limit: 150
# needs: qemu

make_image theirs.img 8M
make_image ours.img 8M
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_qemu theirs.img xvda)" disk="$(served_by_us ours.img xvdb)"
equal 'backends' "$(xenstore-list /local/domain/0/backend | sort | xargs)" 'console qdisk vbd'
run one "$(verifying 6M xvda xvdb)"
carries one xvda theirs.img
carries one xvdb ours.img
no_kernel_complaint one
shut_down one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
