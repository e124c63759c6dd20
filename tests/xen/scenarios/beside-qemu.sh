# A guest has one disk of QEMU's and one of ours, both busy at the same time.
# limit: 240
# needs: qemu

make_image theirs.img 8M
make_image ours.img 8M
start_daemon
idle=$(daemon_footprint)
create one disk="$(served_by_qemu theirs.img xvda)" disk="$(served_by_us ours.img xvdb)"
# What a process has open of the images.
images_of() { ls -l "/proc/$1/fd" | sed -n "s|.*-> $PWD/||p" | sort -u | xargs; }
equal "QEMU's images" "$(images_of "$(pidof xen-qemu-system-i386)")" theirs.img
equal "the daemon's images" "$(images_of "$daemon")" ours.img
run one "$(verifying 6M xvda xvdb)"
carries one xvda theirs.img
carries one xvdb ours.img
no_kernel_complaint one
shut_down one
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
