//! Why our end works with peers that differ.

/// What a difference means to our end, and the clauses that show the difference.
pub(super) const COPES: &[(&str, &[&str])] = &[
    (
        "Our frontend never publishes more requests than there are free slots: `ringbuf` refuses the push.",
        &[
            "ring.overflow-closes",
            "ring.overflow-after-use-closes",
            "ring.index-back-closes",
            "ring.broken-stays-broken",
            "ring.broken-then-new",
            "ring.admitted-before-overflow",
            "queues.one-broken-closes-all",
        ],
    ),
    ("Our frontend reads the three fields of a response and nothing between them.", &["ring.padding-zero"]),
    (
        "Our frontend ends when the backend closes, and adds the backend's `error` node where there is one. The kernel's is below \
         `error/` of dom0, where only dom0 looks.",
        &[
            "keys.error-is-absolved",
            "keys.huge-value-short-error",
            "keys.missing-is-named",
            "keys.not-a-flag-refused",
            "keys.not-a-number-refused",
            "keys.protocol-unknown-refused",
            "keys.ring-not-granted-refused",
            "queues.bad-number-refused",
            "queues.missing-key-refused",
            "ring.attach-overflow-refused",
            "xenbus.broken-keys-then-closed",
        ],
    ),
    (
        "With one page our frontend writes `ring-ref` and no key that tells of pages.",
        &["ring.pages-order-zero"],
    ),
    (
        "Our frontend sends nothing behind a barrier until that is answered.",
        &["barrier.orders-writes", "barrier.orders-answers"],
    ),
    ("A discard of nothing is the caller's own wish, and so is the error.", &["discard.range"]),
    (
        "Our frontend sends a secure discard only where `discard-secure` is 1; 0 is none to it.",
        &["discard.secure-not-offered", "features.no-zeros"],
    ),
    ("Our frontend reads what is offered again when the backend is connected.", &["features.before-state-2"]),
    ("A buffer of our frontend belongs to one request at a time.", &["persistent.same-page-at-once"]),
    (
        "Our frontend goes from 1 to 3 and 4, and away through 5 and 6; it writes no other state and removes none.",
        &["xenbus.ignores-what-means-nothing", "xenbus.no-sensible-state", "xenbus.state-node-gone"],
    ),
    (
        "Our frontend takes a device that an earlier driver has left connected through 5, 6 and 1 before it connects.",
        &["xenbus.came-back-without-closing", "xenbus.came-back-at-once"],
    ),
    (
        "Our frontend starts its rings at 0, and 2^32 requests on one connection take days: QEMU counts from 0 whatever the ring says.",
        &["ring.attaches-at-rsp-prod", "ring.index-wraps"],
    ),
    (
        "Our frontend checks every request before it sends it: data that is none, or beyond the disk, is refused at home.",
        &["request.id-is-opaque", "request.no-segments", "request.sector-overflow"],
    ),
    (
        "Our frontend sends only operations that are offered.",
        &["request.unknown-operation", "hostile.random-requests"],
    ),
    (
        "Our frontend names no page of a ring as data, none twice for a ring, leaves indices and ports alone, and does not touch what it has \
         published. A guest that does hangs QEMU, which is its own.",
        &[
            "hostile.port-closes",
            "hostile.random-indices",
            "hostile.ring-of-one-page-twice",
            "hostile.ring-page-as-data",
            "hostile.slot-changes-while-read",
        ],
    ),
    // Of frontends.
    (
        "Our backend takes nothing from fields that mean nothing in a request, and uses an id only to answer with it.",
        &[
            "requests.discard-bytes",
            "requests.flush-by-barrier",
            "requests.flush-bytes",
            "requests.ids-of-their-own",
        ],
    ),
    (
        "Linux lends writable whatever it lends once it has found out about persistent grants. Our backend maps for reading what it \
         only reads, and takes of a page no more than the sectors that a request names.",
        &[
            "features.empty-is-absent",
            "features.zero-is-none",
            "grants.access",
            "grants.descriptors-read-only",
            "grants.no-neighbours",
            "grants.persistent-by-both",
        ],
    ),
    (
        "Our backend keeps pages where both ends say so; whom a guest trusts is the guest's affair.",
        &["grants.untrusted"],
    ),
    (
        "An earlier driver's keys may lie in the directory. Of the keys of rings our backend believes those that fit together, and it \
         takes indirect requests whatever the keys of segment blocks say.",
        &["features.stale-keys"],
    ),
    (
        "Our backend publishes numbers that are some, before the state that they belong to.",
        &["disk.nonsense", "features.garbage-is-named"],
    ),
    (
        "Our backend goes through every state in turn, and needs no frontend to do so: what it sees is taken as the state that it is, \
         and rings end with the frontend's directory if not with a state.",
        &[
            "xenbus.backend-gone",
            "xenbus.backend-skips-5",
            "xenbus.closing-is-served",
            "xenbus.earlier-driver",
            "xenbus.refused",
            "xenbus.sets-up-on-2-to-4",
            "xenbus.stop-sequence",
            "xenbus.waits-for-initwait",
        ],
    ),
    (
        "Our backend checks range and alignment of every request for itself.",
        &["requests.misaligned-refused", "requests.within-the-disk"],
    ),
    ("Our backend answers an indirect request with the operation inside.", &["sizes.indirect-inner-or-6"]),
    (
        "Linux gives the disk up, tells only its own log, and stays at 4. Our backend answers every request once, with its id and its \
         operation, and has unmapped its pages by then.",
        &[
            "hostile.all-work-ends",
            "hostile.answered-twice",
            "hostile.id-of-another-time",
            "hostile.rsp-prod-goes-back",
            "hostile.rsp-prod-jumps",
            "hostile.still-mapped",
            "hostile.tells-why",
            "hostile.unknown-id",
            "hostile.wrong-operation",
            "hostile.wrong-operation-of-indirect",
        ],
    ),
];
