# The clauses about backends, against ours, which is to keep all of them.
# only: by name
# limit: 900
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
put_clauses served_by_us
fails grep -vxE 'holds|not run' <(cut -f 3 "$OUTCOMES")
no_kernel_complaint one
as_recorded
shut_down one
nothing_left
stop_daemon
