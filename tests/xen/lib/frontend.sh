# Our own frontend in a guest, on a disk that the kernel's driver leaves alone because it is not loaded.

# create_without_driver NAME [WORD]...: as create. gntalloc's limit of 1024 pages is for all programs together.
create_without_driver() {
    create "$@" cmdline=bed.front=no
    run "$1" 'test ! -e /sys/module/xen_blkfront && echo 65536 >/sys/module/xen_gntalloc/parameters/limit'
}

# Moves data both ways by each way of carrying it, and compares: drive NAME [WAY]...
# A way is what the tool is told; each connects anew.
drive() {
    local name=$1 way
    run "$name" 'dd if=/dev/urandom of=/tmp/data bs=1M count=3 status=none'
    # At no boundary of anything.
    run "$name" 'tail -c +100 /tmp/data | blkfront write --offset 5000'
    run "$name" 'blkfront read --offset 5000 --length 3145629 | cmp - <(tail -c +100 /tmp/data)'
    for way in "${@:2}"; do
        run "$name" "blkfront $way info | tr '\n' ';'"
        run "$name" "blkfront $way copy in /tmp/data --quiet --verify"
        run "$name" "blkfront $way bench --rw randrw --overwrite --bs 4k --depth 16 --count 500 | grep IOPS"
    done
}
