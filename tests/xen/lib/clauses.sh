# The conformance clauses, put by programs in guests and dom0 to ends that nobody here wrote, and to ours. needs: clauses
#
# What came of each is in /out/clauses.tsv, a line a clause, and must be what expected/SCENARIO.tsv has on record. To record it
# anew, and with it docs/INTEROP.md:
#
#   tests/xen/run SCENARIO
#   cp .cache/xen/out/SCENARIO/clauses.tsv tests/xen/expected/SCENARIO.tsv
#   cargo run --bin xenclauses -- table >docs/INTEROP.md

OUTCOMES=/out/clauses.tsv

# put_clauses SERVED_BY: to a backend, from guest "one", which is made anew whenever its disk does not survive a clause
put_clauses() {
    local doubtful
    # The size that clauses expect, on a file system that has holes.
    IMAGE=/dev/shm/clauses.img
    truncate -s 16M "$IMAGE"
    : >"$OUTCOMES"
    ask "$1"
    mapfile -t doubtful < <(not_as_recorded)
    if [ "${#doubtful[@]}" -gt 0 ]; then
        say "once more, as something may just have been slow: ${doubtful[*]}"
        shut_down one
        forget_outcomes "${doubtful[@]}"
        ask "$1" "${doubtful[@]}"
    fi
    cat "$OUTCOMES"
}

# ask SERVED_BY [CLAUSE]...
ask() {
    local status=3 begin known
    begin=$(wc -l <"$OUTCOMES")
    while [ "$status" -eq 3 ]; do
        known=$(($(wc -l <"$OUTCOMES") - begin))
        create_without_driver one disk="$("$1" "$IMAGE" xvda)"
        run one "{ xenclauses backends --skip $known ${*:2} >/tmp/outcomes 2>/tmp/said; echo \$? >/tmp/over; } &"
        # Seldom, because asking a guest takes much of an emulated dom0's time.
        until run one 'tail -n 1 /tmp/outcomes; test -s /tmp/over' 2>/dev/null; do sleep 4; done
        run one 'cat /tmp/said'
        run one 'cat /tmp/outcomes' >>"$OUTCOMES"
        status=$(run one 'cat /tmp/over')
        # A guest that has done nothing leaves nothing for the next to go on from.
        [ "$(wc -l <"$OUTCOMES")" -gt $((begin + known)) ]
        # A backend that hangs makes xl complain.
        [ "$status" -ne 3 ] || xl destroy one || within 30 is_gone one
    done
    [ "$status" -eq 0 ]
}

# The clauses whose verdicts are not those on record, if there is a record.
not_as_recorded() {
    local record=/bed/expected/$BED_SCENARIO.tsv
    [ ! -e "$record" ] || comm -13 <(verdicts "$record") <(verdicts "$OUTCOMES") | cut -f 1 | sort -u
}

# forget_outcomes CLAUSE...
forget_outcomes() {
    grep -vFf <(printf '%s\t\n' "$@") "$OUTCOMES" >kept || [ ! -s kept ]
    mv kept "$OUTCOMES"
}

# The verdicts, and not the words in which they are told, are those on record.
as_recorded() { diff <(verdicts "/bed/expected/$BED_SCENARIO.tsv") <(verdicts "$OUTCOMES"); }

verdicts() { cut -f 1-3 "$1" | sort; }
