# The conformance clauses, put by programs in guests and dom0 to ends that nobody here wrote, and to ours. needs: clauses
#
# What came of each is in /out/clauses.tsv, a line a clause, and must be what expected/SCENARIO.tsv has on record. To record it
# anew, and with it docs/INTEROP.md:
#
#   tests/xen/run SCENARIO
#   cp .cache/xen/out/SCENARIO/clauses.tsv tests/xen/expected/SCENARIO.tsv
#   cargo run --bin xenclauses -- table >docs/INTEROP.md

OUTCOMES=/out/clauses.tsv

# Empty disks for the clauses, in xl's notation with a comma between them: blank_disks SERVED_BY
# More than one, as a clause may cost the disk that it is put to. Of the size that clauses expect.
blank_disks() {
    local device
    for device in xvda xvdb xvdc xvdd; do
        truncate -s 16M "$device.img"
        printf 'disk=%s\n' "$("$1" "$device.img" "$device")"
    done
}

# Clauses that tell layouts apart: put in x86_32-abi too, whose entries differ in size and offsets.
LAYOUT='ring.every-slot request.reads request.write-parts discard.answered indirect.moves-data keys.protocol keys.empty blocks.cap'

# put_clauses NAME: to the backend of the guest's disks, until the scenario's time is up
# Asking a guest for an answer takes much of an emulated dom0's time, so it is asked seldom.
put_clauses() {
    run "$1" "{ { xenclauses backends --abi x86_64-abi && xenclauses backends --abi x86_32-abi $LAYOUT; } \
        >/tmp/outcomes 2>/tmp/said; echo \$? >/tmp/over; } &"
    until run "$1" 'test -s /tmp/over' 2>/dev/null; do sleep 4; done
    run "$1" 'cat /tmp/said'
    run "$1" 'cat /tmp/outcomes; exit $(cat /tmp/over)' | tee "$OUTCOMES"
}

# The verdicts, and not the words in which they are told, are those on record.
as_recorded() { diff <(verdicts "/bed/expected/$BED_SCENARIO.tsv") <(verdicts "$OUTCOMES"); }

verdicts() { cut -f 1-3 "$1" | sort; }
