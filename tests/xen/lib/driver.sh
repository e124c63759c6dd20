# The conformance clauses about frontends, put by a program in dom0 to the block driver of a guest's kernel. needs: clauses

# put_clauses_to_guests PROCESSORS [CLAUSE]...: those without an outcome yet, to a guest, and to another when one is spent
put_clauses_to_guests() {
    local status
    while :; do
        create one vcpus="$1"
        run one 'echo 0 >/sys/bus/xen/drivers_autoprobe'
        status=0
        xenclauses frontends --domain "$(xl domid one)" --outcomes "$OUTCOMES" "${@:2}" || status=$?
        xl destroy one || say 'the guest was gone already'
        [ $status -eq 3 ] || return $status
    done
}
