# What happens to the disk of a guest that is nothing but our frontend while it is soaked: it grows; its backend closes and comes
# back, dies and comes back, or not; it is taken away.
# limit: 300
# needs: bare

make_image disk.img 32M
disk=disk=$(served_by_us disk.img xvda)
start_daemon

say 'it grows'
start_bare one pv 'soak runtime=10' "$disk"
within 20 has_told one '^connection ' 1
truncate -s 48M disk.img
kill -HUP "$daemon"
end_of_bare one | tee said
grep '^the disk has 98304 sectors now' said
grep -E '^soaked [2-9] rounds' said
nothing_left

say 'the daemon is stopped and started'
start_bare one pv 'soak runtime=9 timeout=20' "$disk"
within 20 has_told one '^connection ' 1
sleep 2
stop_daemon
start_daemon
end_of_bare one | tee said
grep '^the backend closes the disk: waiting for it to offer it again' said
nothing_left

say 'the daemon dies, and another goes on where it was'
start_bare one pv 'soak runtime=8 timeout=10' "$disk"
within 20 has_told one '^connection ' 1
for kill in 1 2 3; do
    kill_daemon
    start_daemon
    sleep 1
done
end_of_bare one | tee said
grep '^soaked 1 rounds' said
nothing_left

say 'the daemon dies, and none comes'
start_bare one pv 'soak runtime=60 timeout=3' "$disk"
within 20 has_told one '^connection ' 1
kill_daemon
fails end_of_bare -t 30 one | tee said
grep 'I/Os failed when the disk was closed' said
grep '^failed: no answer within 3 s' said
start_daemon
nothing_left

say 'the disk is detached'
for command in 'soak runtime=60' 'bench runtime=60'; do
    start_bare one pvh "$command" "$disk"
    within 20 has_told one '^connection ' 1
    sleep 2
    xl block-detach one xvda
    fails end_of_bare -t 20 one | tee said
    grep '^failed: ' said
    nothing_left
done
stop_daemon
