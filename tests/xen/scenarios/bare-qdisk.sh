# A guest that is nothing but our frontend, PV and PVH, on QEMU's backend.
# limit: 240
# needs: bare qemu

make_image disk.img 32M
disk=disk=$(served_by_qemu disk.img xvda)
for type in pv pvh; do
    boot_bare one $type 'verify extents=12 segments=auto' "$disk" | tee said
    equal 'ways of carrying requests' "$(grep -c '^verified 12 extents' said)" 1
    boot_bare one $type sum "$disk" | tee said
    told_sum disk.img <said
done
boot_bare one pv 'soak runtime=5' "$disk" | tee said
grep -E '^soaked [1-9][0-9]* rounds: ' said
nothing_left
