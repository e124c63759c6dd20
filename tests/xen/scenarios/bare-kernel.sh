# A guest that is nothing but our frontend, PV and PVH, on the kernel's backend.
# limit: 180
# needs: bare

make_image disk.img 32M
disk=disk=$(served_by_kernel disk.img xvda)
for type in pv pvh; do
    boot_bare one $type 'verify extents=12' "$disk" | tee said
    equal 'ways of carrying requests' "$(grep -c '^verified 12 extents' said)" 5
    grep -qF ' indirect requests' said
    boot_bare one $type sum "$disk" | tee said
    told_sum disk.img <said
done

say 'the backend lets the disk go while it is soaked, and takes it again'
start_bare one pv 'soak runtime=8' "$disk"
within 20 has_told one '^connection' 1
backend=vbd-$(xl domid one)-51712
for round in 1 2; do
    sleep 1
    echo "$backend" >/sys/bus/xen-backend/drivers/vbd/unbind
    sleep 0.5
    echo "$backend" >/sys/bus/xen-backend/drivers/vbd/bind
done
end_of_bare one | tee said
grep -E '^soaked [1-9][0-9]* rounds: ' said
no_kernel_complaint
nothing_left
