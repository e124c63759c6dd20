# A disk comes to a live guest and goes again, several times, while another disk of the guest is busy.
# limit: 150

make_image busy.img 32M
make_image guest.img 32M
sum=$(md5_of guest.img)
start_daemon
create one
alone=$(grants_in_use one)
attach one "$(served_by_us busy.img xvda)"
run one 'while :; do dd if=/dev/zero of=/dev/xvda bs=64k count=400 oflag=direct 2>/dev/null; done & echo $! >/tmp/load'
for round in 1 2 3; do
    say "round $round"
    xl block-attach one "$(served_by_us guest.img xvdb)"
    within 10 run one 'test -b /dev/xvdb'
    equal 'what the guest reads' "$(run one 'md5sum </dev/xvdb | cut -d" " -f1')" "$sum"
    xl block-detach one xvdb
    within 10 run one '! test -e /dev/xvdb'
    equal 'disks of the guest' "$(xl block-list one | tail -n +2 | wc -l)" 1
done
run one 'kill $(cat /tmp/load); sleep 1'
# A busy disk keeps the pages that it uses, until it goes too.
detach one xvda
equal 'grants in use' "$(grants_in_use one)" "$alone"
no_kernel_complaint one
shut_down one
nothing_left
stop_daemon
