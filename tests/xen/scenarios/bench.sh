# The same reads of a stock guest over the kernel's backend, QEMU's and ours, three rounds in turn; figures are good for ratios only.
# The guest reads the time from the processor: else half of what is measured is fio asking Xen for it.
# limit: 600
# needs: qemu
# only: by name

make_image disk.img 64M
create one memory=384 cmdline="clocksource=tsc tsc=reliable" disk="$(served_by_qemu disk.img xvda)"
for round in 1 2 3; do
    for backend in "${BACKENDS[@]}"; do
        say "round $round: $backend"
        measure_backend "$backend" disk.img one
    done
done
report | tee /out/bench.txt
shut_down one
nothing_left
