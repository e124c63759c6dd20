# What cannot be served is refused in words that xl prints, and what is served goes on.
# limit: 180

# refused PATH r|w: for guest two; prints what xl says, and removes what it leaves behind
refused() {
    fails xl block-attach two "format=raw,vdev=xvdb,access=$2,backendtype=phy,script=block-blkback,target=$1" 2>&1
    xl block-detach two xvdb
}

say 'the daemon where it cannot run'
mv /dev/xen/gntdev /dev/xen/away
fails blkback 2>said
grep 'cannot open /dev/xen/gntdev: .*is the kernel module xen-gntdev loaded?' said
mv /dev/xen/away /dev/xen/gntdev
mv /dev/xen /dev/away
fails blkback 2>said
grep 'this system does not run on Xen: there is no /dev/xen' said
mv /dev/away /dev/xen
echo 'guest:x:1000:1000::/:/bin/sh' >>/etc/passwd
fails su guest -c blkback 2>said
grep 'Permission denied.*this takes root' said

say 'a second daemon'
start_daemon
idle=$(daemon_footprint)
fails blkback 2>said
grep "another blkback is running, process $daemon" said

say 'images'
for image in one two; do make_image $image.img 8M; done
create one disk="$(served_by_us one.img xvda)"
create two disk="$(served_by_us two.img xvda)"
refused /nowhere/disk.img w | grep 'no such image: /nowhere/disk.img'
refused "$PWD" w | grep "neither a file nor a block device: $PWD"
for access in w r; do
    refused "$PWD/one.img" $access | grep "image $PWD/one.img is in use by guest $(xl domid one), disk 51712"
done
carries one xvda one.img
carries two xvda two.img
detach one xvda
attach two "$(served_by_us one.img xvdb)"
carries two xvdb one.img
for guest in one two; do
    no_kernel_complaint $guest
    shut_down $guest
done
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
