# The Debian package in dom0: installed, configured, a guest served, a newer one installed under it, removed and purged.
# needs: packages
# limit: 240

export PATH=$PATH:/sbin
mkdir -p /var/lib/dpkg/{info,updates,triggers} /var/log
touch /var/lib/dpkg/{status,available}
# What this dom0 is made of was not installed by dpkg.
ln -s /bin/true /sbin/ldconfig
# What systemd makes of the package's sysusers.d file.
printf '#!/bin/sh\necho blkback:x:990:990::/:/bin/false >>/etc/passwd\n' >/usr/bin/systemd-sysusers
chmod +x /usr/bin/systemd-sysusers
install() { dpkg --force-depends --force-confold -i "$1"; }

say 'installed'
rm /usr/bin/blkback /usr/bin/blkctl /etc/xen/scripts/block-blkback
hash -r
install /bed/packages/blkback.deb
dpkg -s blkback | grep 'Status: install ok installed'
test -x /usr/sbin/blkback && test -x /usr/bin/blkctl && test -x /etc/xen/scripts/block-blkback
grep '^blkback:' /etc/passwd
blkback --config /etc/blkback.toml --check-config
test -s /usr/lib/systemd/system/blkback.service
zcat /usr/share/man/man1/blkctl.1.gz | grep 'Watches and steers'
fails blkctl list 2>&1 | grep 'cannot reach a blkback at /run/blkback/control.sock'

say 'a guest'
make_image disk.img 8M
start_daemon
equal 'who serves' "$(awk '/^Uid/ { print $2 }' "/proc/$(serving)/status")" "$(id -u blkback)"
create one disk="$(served_by_us disk.img xvda)"
carries one xvda disk.img
domain=$(xl domid one)
blkctl list | grep "^$domain/xvda *connected"
blkctl show "$domain/xvda" | grep '8.00 MiB'
blkctl resize "$domain/xvda" 16M
within 5 run one 'test "$(cat /sys/block/xvda/size)" = 32768'

say 'a newer package'
echo '# local' >>/etc/blkback.toml
before=$(times_ready)
install /bed/packages/blkback-newer.deb
dpkg -s blkback | grep 'Version: 9'
equal 'daemons that were ready' "$(times_ready)" $((before + 1))
grep '^# local' /etc/blkback.toml
carries one xvda disk.img
no_kernel_complaint one
shut_down one

say 'removed'
stop_daemon
dpkg --force-depends -r blkback
fails test -e /usr/sbin/blkback
fails test -e /usr/bin/blkctl
test -s /etc/blkback.toml
dpkg --force-depends -P blkback
fails test -e /etc/blkback.toml
fails test -e /etc/xen/scripts/block-blkback
fails test -e /run/blkback
fails dpkg -s blkback
nothing_left
