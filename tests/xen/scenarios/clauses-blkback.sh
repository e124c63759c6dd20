# The clauses about backends, against ours, which is to keep all of them.
# limit: 600
# needs: clauses

# All that there are clauses about.
cat >clauses.toml <<'END'
[offer]
ring-pages = 32
queues = 4
indirect-segments = 4096
persistent = true
END
start_daemon --config clauses.toml
mapfile -t disks < <(blank_disks served_by_us)
create_without_driver one "${disks[@]}"
put_clauses one
fails cut -f 3 "$OUTCOMES" | grep -vxE 'holds|not run'
no_kernel_complaint one
as_recorded
shut_down one
nothing_left
stop_daemon
