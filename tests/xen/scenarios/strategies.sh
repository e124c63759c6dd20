# Data moves by each of the daemon's strategies; persistent grants are used if both ends want them, and only then.
# limit: 300

make_image disk.img 8M
create one
alone=$(grants_in_use one)

# moves STRATEGY OFFERED ASKED KEPT: what each end says of persistent grants, and whether they stay mapped. Without a strategy it
# is the daemon's own choice, for an image in the page cache.
moves() {
    local strategy=$1 offered=$2 asked=$3 kept=$4 mapped
    start_daemon ${strategy:+--strategy "$strategy"}
    attach one "$(served_by_us disk.img xvda)"
    equal 'offered' "$(backend_node one xvda feature-persistent)" "$offered"
    equal 'asked for' "$(frontend_node one xvda feature-persistent)" "$asked"
    run one "$(verifying 6M xvda)"
    carries one xvda disk.img
    mapped=$(($(grants_in_use one) - alone))
    # The ring, if nothing else.
    say "${strategy:-chosen}: $mapped pages mapped"
    if [ "$kept" = yes ]; then [ "$mapped" -gt 16 ]; else equal 'mapped' "$mapped" 1; fi
    detach one xvda
    equal 'grants in use' "$(grants_in_use one)" "$alone"
    stop_daemon
}

moves copy '' 1 no
moves direct '' 1 no
moves '' 1 1 yes
run one 'echo 0 >/sys/module/xen_blkfront/parameters/feature_persistent'
moves persistent 1 0 no
no_kernel_complaint one
shut_down one
nothing_left
