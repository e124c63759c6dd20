# XenStore is slow, and then gone: disks that are connected are served on.
# limit: 200

# The guest's disk keeps what is written to it: works GUEST
works() { run "$1" 'date +%s%N >/tmp/now && dd if=/tmp/now of=/dev/xvda bs=512 conv=sync,fsync status=none &&
    dd if=/dev/xvda bs=512 count=1 iflag=direct status=none | head -n 1 | cmp - /tmp/now'; }

# said TIMES WORDS: by the daemon
said() { [ "$(grep -c "$2" /out/blkback.log)" -eq "$1" ]; }

# goes_on: the load that ran before, and not only what has begun since
goes_on() { [ "$(run one 'wc -l </tmp/rounds')" -gt "$rounds" ]; }

for image in one more; do make_image $image.img 8M; done
start_daemon
create one disk="$(served_by_us one.img xvda)"
# Asked while XenStore tells it.
console=$(console_of one)
console_of() { echo "$console"; }

say 'XenStore is slow'
run one 'while :; do dd if=/dev/xvda of=/dev/null bs=64k iflag=direct 2>/dev/null; echo >>/tmp/rounds; done & echo $! >/tmp/pid'
xenstored=$(cat /run/xen/xenstored.pid)
kill -STOP "$xenstored"
works one
within 25 said 1 'XenStore does not answer: connected disks are served on'
kill -CONT "$xenstored"
within 10 said 1 'XenStore answers again'
attach one "$(served_by_us more.img xvdb)"
carries one xvdb more.img
detach one xvdb

say 'XenStore is gone'
kill -KILL "$xenstored"
within 30 said 2 'XenStore does not answer: connected disks are served on'
works one
rounds=$(run one 'wc -l </tmp/rounds')
within 20 goes_on
kill -0 "$daemon"
stop_daemon
said 1 'XenStore does not answer: guests cannot be told'
