# A PVH guest that is nothing but our frontend is saved and restored at work: it finds its disk again, asks again for what was
# not answered, and checks every byte.
# limit: 240
# needs: bare

start_daemon
idle=$(daemon_footprint)
make_image disk.img 32M

start_bare one pvh 'soak runtime=600 queues=2 ring-pages=4' "disk=$(served_by_us disk.img xvda)"
within 60 has_told one '^connection' 1
sleep 2
# Whoever waits for the guest's end does not any more after this; xl restore begins to, below.
say 'saved, and goes on where it was'
xl save -c one /run/one.save 2>>/out/save.log
within 20 has_told one '^goes on where it was' 1
for times in 1 2 3; do
    # In the midst of it.
    sleep 2
    say "saved and restored, the $times. time"
    xl save one /run/one.save 2>>/out/save.log
    fails xl domid one
    within 5 no_devices
    xl restore /run/one.save 2>>/out/save.log
    within 60 has_told one '^the backend is back' "$times"
done
xl shutdown one
end_of_bare one | tee said
equal 'how often it was restored' "$(grep -c '^restored' said)" 3
equal 'how often its disk was gone' "$(grep -c '^the backend is gone' said)" 3
grep '^soaked' said
nothing_left
equal 'what the daemon holds' "$(daemon_footprint)" "$idle"
stop_daemon
