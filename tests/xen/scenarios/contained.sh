# The daemon serves as a user without rights, opens nothing by itself, and what it is not to do is refused.
# limit: 180

echo 'blkback:x:990:990::/:/bin/false' >>/etc/passwd
say 'what is possible inside'
blkback --images "$PWD" --self-test-sandbox | tee trials
grep -x 'as it should be' trials
fails blkback --images "$PWD" --self-test-sandbox --no-sandbox >trials
grep -x 'NOT as it should be' trials

say 'a guest'
make_image disk.img 8M
make_image other.img 8M
chmod 600 ./*.img
start_daemon
equal 'who serves' "$(awk '/^Uid/ { print $2, $3, $4 }' "/proc/$(serving)/status")" '990 990 990'
equal 'its capabilities' "$(awk '/^CapEff/ { print $2 }' "/proc/$(serving)/status")" 0000000000000000
create one disk="$(served_by_us disk.img xvda)"
carries one xvda disk.img
attach one "$(served_by_us other.img xvdb)"
carries one xvdb other.img
detach one xvdb

say 'an image elsewhere'
mkdir -p /srv
cp disk.img /srv/elsewhere.img
fails xl block-attach one "$(served_by_us /srv/elsewhere.img xvdb)" 2>&1 | grep 'outside of the folders for images'
xl block-detach one xvdb

say 'an upgrade, and a kill'
blkback upgrade
equal 'who serves' "$(awk '/^Uid/ { print $2 }' "/proc/$(serving)/status")" 990
carries one xvda disk.img
kill_daemon
start_daemon
within 10 grep 'going on where an earlier daemon was killed' /out/blkback.log
carries one xvda disk.img
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
