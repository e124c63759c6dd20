# 4 KiB random reads at depth 32 from our daemon: by a guest that is nothing but our frontend, and by a stock guest with fio, PV and
# PVH, three rounds in turn; figures are good for ratios only.
# limit: 400
# needs: bare
# only: by name

# measure_bare TYPE: a line as measure_job's
measure_bare() {
    boot_bare two "$1" "bench rw=randread bs=4096 depth=32 warmup=1 runtime=3" disk="$disk" >said
    grep '^{' said | tee -a /out/bare-bench.json |
        sed -nE "s/.*\"total\":\{\"ios\":[0-9]+,\"iops\":([0-9.]+).*/bare-$1 4k-32 \1 0 0/p" | tee -a "$MEASURED"
}

make_image disk.img 64M
disk=$(served_by_us disk.img xvda)
start_daemon
for type in pv pvh; do create stock-$type $type cmdline="clocksource=tsc tsc=reliable"; done
for round in {1..3}; do
    for type in pv pvh; do
        say "round $round, $type"
        attach stock-$type "$disk"
        measure_job stock-$type stock-$type xvda 4k-32 randread 4k 32
        detach stock-$type xvda
        measure_bare $type
    done
done
for type in pv pvh; do
    awk -v type=$type -v bare="$(median bare-$type 4k-32 3)" -v stock="$(median stock-$type 4k-32 3)" \
        'BEGIN { printf "%-4s stock %6.0f IOPS, bare %6.0f IOPS, ratio %.2f\n", type, stock, bare, bare / stock }'
done | tee /out/bare-bench.txt
for type in pv pvh; do shut_down stock-$type; done
nothing_left
stop_daemon
