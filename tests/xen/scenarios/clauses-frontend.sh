# The clauses about frontends, put to the driver of a stock guest's kernel. By name until all of them are on record.
# only: by name
# needs: clauses
# limit: 1200

# The driver has no more queues than there are processors; without need there is one, which strains the emulator less.
ask_guests() {
    put_clauses_to_guests 3 features.several-queues features.lesser-queues
    put_clauses_to_guests 1
}

ask_guests
mapfile -t doubtful < <(not_as_recorded)
if [ "${#doubtful[@]}" -gt 0 ]; then
    say "once more, as something may just have been slow: ${doubtful[*]}"
    forget_outcomes "${doubtful[@]}"
    ask_guests
fi
as_recorded
nothing_left
