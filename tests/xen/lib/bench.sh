# Measurements of backends, in turn in one boot, from one stock guest.

# The last two are ours, by name of a strategy; `polling` is the one before with a worker that looks on for a while before it sleeps.
BACKENDS=(kernel qemu copy persistent polling)
# Name, pattern, block size, depth.
JOBS=('4k-1 randread 4k 1' '4k-32 randread 4k 32' '1m-4 read 1m 4')
MEASURED=/out/measured

# One backend for one round: measure_backend BACKEND IMAGE GUEST
# QEMU's disk is xvda and there from the start, because QEMU is started with the guest only; the others come and go as xvdb.
measure_backend() {
    local backend=$1 image=$2 guest=$3 disk job
    case $backend in
    qemu)
        for job in "${JOBS[@]}"; do measure_job "$backend" "$guest" xvda $job; done
        return
        ;;
    kernel) disk=$(served_by_kernel "$image" xvdb) ;;
    *)
        case $backend in
        polling) start_daemon --strategy persistent --poll-us 1000 ;;
        *) start_daemon --strategy "$backend" ;;
        esac
        disk=$(served_by_us "$image" xvdb)
        ;;
    esac
    xl block-attach "$guest" "$disk"
    within 10 run "$guest" 'test -b /dev/xvdb'
    for job in "${JOBS[@]}"; do measure_job "$backend" "$guest" xvdb $job; done
    xl block-detach "$guest" xvdb
    within 10 run "$guest" '! test -e /dev/xvdb'
    case $backend in
    kernel)
        losetup -D
        rmmod xen-blkback
        ;;
    *) stop_daemon ;;
    esac
}

# One line: backend, job, IOPS, mean latency in µs, dom0's processor time in ms for 1000 I/Os.
measure_job() {
    local backend=$1 guest=$2 disk=$3 name=$4 pattern=$5 size=$6 depth=$7 from to result
    run "$guest" "fio --minimal --name=$name --filename=/dev/$disk --rw=$pattern --bs=$size --iodepth=$depth --ioengine=libaio \
        --direct=1 --time_based --ramp_time=1 --runtime=3 >/tmp/fio 2>&1 </dev/null &"
    # In the middle of it, and without anything else going on in dom0.
    sleep 1.5
    from=$(dom0_time)
    sleep 2
    to=$(dom0_time)
    result=$(run "$guest" 'while pidof fio >/dev/null; do sleep 0.2; done; cut -d";" -f8,40 /tmp/fio')
    awk -v b="$backend" -v j="$name" -v f="$from" -v t="$to" -F';' \
        '{ print b, j, $1, $2, (t - f) / 2 / $1 * 1e6 }' <<<"$result" | tee -a "$MEASURED"
}

# Seconds of processor time.
dom0_time() { xl list 0 | awk 'NR == 2 { print $NF }'; }

# The medians, and their ratios.
report() {
    local job name backend
    printf '%-8s %-11s %8s %10s %12s %9s %10s %13s\n' job backend IOPS 'latency µs' 'ms/1000 I/Os' 'x qemu' 'x kernel' 'time x qemu'
    for job in "${JOBS[@]}"; do
        name=${job%% *}
        for backend in "${BACKENDS[@]}"; do
            awk -v b="$backend" -v j="$name" -v iops="$(median "$backend" "$name" 3)" -v lat="$(median "$backend" "$name" 4)" \
                -v cpu="$(median "$backend" "$name" 5)" -v qemu="$(median qemu "$name" 3)" -v kernel="$(median kernel "$name" 3)" \
                -v qcpu="$(median qemu "$name" 5)" \
                'BEGIN { printf "%-8s %-11s %8.0f %10.0f %12.1f %9.2f %10.2f %13.2f\n", j, b, iops, lat, cpu, iops / qemu, iops / kernel, cpu / qcpu }'
        done
    done
}

# median BACKEND JOB COLUMN
median() {
    awk -v b="$1" -v j="$2" -v c="$3" '$1 == b && $2 == j { print $c }' "$MEASURED" | sort -n |
        awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}
