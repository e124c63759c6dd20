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
        "Our frontend names no page of a ring as data, none twice for a ring, leaves indices alone, and does not touch what it has \
         published. A guest that does hangs QEMU, which is its own.",
        &[
            "hostile.random-indices",
            "hostile.ring-of-one-page-twice",
            "hostile.ring-page-as-data",
            "hostile.slot-changes-while-read",
        ],
    ),
    (
        "Not looked into: seen once, on a machine with much else to do, and may be nothing but slowness.",
        &["request.handle-ignored", "ring.pages-by-order"],
    ),
];
