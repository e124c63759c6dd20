# What every step on the host shares: where things are, and how programs come into an image. To be sourced.

BED=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XEN_BED_CACHE:-$BED/../../.cache/xen}
mkdir -p "$CACHE"
CACHE=$(cd "$CACHE" && pwd)
# The unpacked packages, and where their libraries are.
ROOT=$CACHE/root
LIBRARIES=$ROOT/usr/lib/x86_64-linux-gnu:$ROOT/lib/x86_64-linux-gnu
# The folder of libraries inside every image.
IMAGE_LIBRARIES=usr/lib/x86_64-linux-gnu

say() { echo "tests/xen: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# The folder of the images that belong to the present inputs: whatever changes gives a new folder, so that images which
# another run boots from are never written to.
images_folder() {
    echo "$CACHE/images-$(cat "$BED"/packages "$BED"/host/{common.sh,fio,images} "$BED"/{dom0,guest}/* | sha256sum | head -c 16)"
}

# The path of PROGRAM in the unpacked packages.
program() {
    local folder
    for folder in usr/sbin usr/bin sbin bin; do
        [ -x "$ROOT/$folder/$1" ] && echo "$ROOT/$folder/$1" && return
    done
    fail "no program $1 among the packages"
}

# Adds the shared libraries that FILE... need, and the loader: add_libraries IMAGE FILE...
# The packages' libraries go before the host's. What is no dynamic program needs none.
add_libraries() {
    local image=$1 file name path missing=0
    shift
    mkdir -p "$image/$IMAGE_LIBRARIES" "$image/usr/lib64"
    while read -r name path; do
        case $path in
        missing) say "library $name not found" && missing=1 ;;
        *) [ -e "$image/$name" ] || cp -L "$path" "$image/$name" ;;
        esac
    done < <(
        for file in "$@"; do LD_LIBRARY_PATH=$LIBRARIES ldd "$file" 2>/dev/null || true; done |
            awk -v folder="$IMAGE_LIBRARIES" '
                /=> not found/ { print $1, "missing"; next }
                /=> \// { print folder "/" $1, $3 }
                /^[ \t]*\/.*ld-linux/ { sub(".*/", "usr/lib64/", $1); print $1, "/" substr($1, 5) }' | sort -u
    )
    return $missing
}

# Writes a folder as a cpio archive, owned by root, as kernels take it: pack FOLDER FILE
pack() { (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | "$ROOT/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$2"; }
