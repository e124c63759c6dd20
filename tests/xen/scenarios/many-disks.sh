# Eight disks of one guest and one of another, all busy at the same time, and each with data of its own.
# limit: 400

mine=(xvd{a..h})
for disk in "${mine[@]}" other; do
    truncate -s 8M "$disk.img"
    echo "$disk" | dd of="$disk.img" bs=512 seek=16000 conv=notrunc status=none
done
start_daemon
idle=$(daemon_footprint)
specs=()
for disk in "${mine[@]}"; do specs+=(disk="$(served_by_us "$disk.img" "$disk")"); done
create one "${specs[@]}"
create two disk="$(served_by_us other.img xvda)"

run -t 120 one "$(verifying 4M "${mine[@]}")" &
first=$!
run -t 120 two "$(verifying 6M xvda)"
wait $first

# The command for a line a disk: the label that dom0 gave it, and the sum of all that is on it now.
contents() { echo "for disk in $*; do echo \$(dd if=\$disk bs=512 skip=16000 count=1 status=none | head -1) \
    \$(md5sum <\$disk); done"; }

of_images=$(eval "$(contents "${mine[@]/%/.img}")")
equal 'labels' "$(cut -d' ' -f1 <<<"$of_images" | xargs)" "${mine[*]}"
equal 'different disks' "$(md5sum ./*.img | cut -d' ' -f1 | sort -u | wc -l)" 9
equal 'what the guest reads' "$(run one "$(contents "${mine[@]/#//dev/}")")" "$of_images"
equal 'what the other reads' "$(run two "$(contents /dev/xvda)")" "$(eval "$(contents other.img)")"
no_kernel_complaint one two
shut_down one
shut_down two
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
