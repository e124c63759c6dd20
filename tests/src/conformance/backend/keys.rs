//! What the frontend writes into XenStore, right and wrong (docs/PROTOCOL.md sections 4.4 and 0).

use anyhow::{Context as _, Result};
use blkif_proto::{Abi, keys, xenbus::State};
use xen_platform::{Access, FrontWorld, Lender as _};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Guest, Wish, silence},
    },
    must,
};

/// What a guest that names no protocol speaks, as Linux, QEMU and tapback have it.
const UNNAMED: &[Abi] =
    if cfg!(any(target_arch = "x86", target_arch = "x86_64")) { &[Abi::X86_32] } else { &[Abi::Arm] };

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "keys.protocol-absent",
            rule: "Without a protocol key a backend on x86 takes the guest for x86_32-abi (0.2).",
            abis: UNNAMED,
            check: |guest| guest.connect(&Wish::default().without(keys::PROTOCOL))?.works(),
        },
        Clause {
            name: "keys.protocol-present",
            rule: "The protocol key decides the layout (0.2, 1.2).",
            abis: EVERY_ABI,
            check: |guest| guest.connect(&Wish::default())?.works(),
        },
        Clause {
            name: "keys.protocol-unknown-refused",
            rule: "A protocol that nobody has specified is refused by the key (1.2, 8.1).",
            abis: ONE_ABI,
            check: protocol_unknown,
        },
        Clause {
            name: "keys.empty-is-absent",
            rule: "An empty value counts as none (0.31).",
            abis: UNNAMED,
            check: empty_is_absent,
        },
        Clause {
            name: "keys.missing-is-named",
            rule: "A key that the ring cannot do without, absent or empty, is named in the error (0.31, 4.4).",
            abis: ONE_ABI,
            check: missing_is_named,
        },
        Clause {
            name: "keys.not-a-number-refused",
            rule: "Numbers are decimal digits and fit their size; anything else is refused by the key (4.4).",
            abis: ONE_ABI,
            check: not_a_number,
        },
        Clause {
            name: "keys.not-a-flag-refused",
            rule: "feature-persistent is 0 or 1 (4.4).",
            abis: ONE_ABI,
            check: not_a_flag,
        },
        Clause {
            name: "keys.huge-value-short-error",
            rule: "However long a guest's value is, what the backend writes about it fits a message (0.25).",
            abis: ONE_ABI,
            check: huge_value,
        },
        Clause {
            name: "keys.error-is-absolved",
            rule: "The error of an earlier connection is gone once the guest is connected (5.5).",
            abis: ONE_ABI,
            check: error_is_absolved,
        },
        Clause {
            name: "keys.unknown-are-ignored",
            rule: "Keys of other extensions mean nothing (4.4).",
            abis: ONE_ABI,
            check: unknown_are_ignored,
        },
        Clause {
            name: "keys.changed-while-connected",
            rule: "Keys are read once for each connection: what is written afterwards means nothing (0.31, 5.2).",
            abis: ONE_ABI,
            check: changed_while_connected,
        },
        Clause {
            name: "keys.read-afresh",
            rule: "Every connect reads all keys anew: another ABI, other rings, other queues (0.31).",
            abis: EVERY_ABI,
            check: read_afresh,
        },
        Clause {
            name: "keys.ring-not-granted-refused",
            rule: "A ring that is not granted is refused (1.2).",
            abis: ONE_ABI,
            check: ring_not_granted,
        },
        Clause {
            name: "keys.ring-read-only-refused",
            rule: "A ring that is granted only to be read is refused (1.2).",
            abis: ONE_ABI,
            check: ring_read_only,
        },
        Clause {
            name: "keys.port-not-free",
            rule: "A port that is not free keeps the guest waiting or is refused; it may close and connect anew (5.5, 6.5).",
            abis: ONE_ABI,
            check: port_not_free,
        },
    ]
}

fn protocol_unknown<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for value in ["x86_64", "X86_64-ABI", "native", "x86_64-abi ", "ppc-abi", "0"] {
        guest.publish(&Wish::default().with(keys::PROTOCOL, value))?;
        guest.refused_for(keys::PROTOCOL).with_context(|| value.to_owned())?;
        guest.restart()?;
    }
    guest.connect(&Wish::default())?.works()
}

fn empty_is_absent<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut wish = Wish::default();
    for key in [
        keys::PROTOCOL,
        keys::FEATURE_PERSISTENT,
        keys::RING_PAGE_ORDER,
        keys::NUM_RING_PAGES,
        keys::RING_PAGES,
        keys::MULTI_QUEUE_NUM_QUEUES,
        keys::MAX_REQUESTS,
        keys::MAX_REQUEST_SEGMENTS,
        keys::MAX_REQUEST_SIZE,
    ] {
        wish = wish.with(key, "");
    }
    guest.connect(&wish)?.works()
}

fn missing_is_named<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for key in [keys::RING_REF, keys::EVENT_CHANNEL] {
        for wish in [Wish::default().without(key), Wish::default().with(key, "")] {
            guest.publish(&wish)?;
            guest.refused_for(key)?;
            guest.restart()?;
        }
    }
    guest.connect(&Wish::default())?.works()
}

/// What is no number in anybody's book.
const NO_NUMBERS: [&str; 12] = [
    "x",
    "-1",
    "+1",
    " 1",
    "1 ",
    "0x10",
    "1.0",
    "1,2",
    "\u{661}",
    "1\n",
    "4294967296",
    "99999999999999999999999999999999",
];

fn not_a_number<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for key in [
        keys::RING_REF,
        keys::EVENT_CHANNEL,
        keys::RING_PAGE_ORDER,
        keys::NUM_RING_PAGES,
        keys::RING_PAGES,
        keys::MULTI_QUEUE_NUM_QUEUES,
        keys::MAX_REQUESTS,
        keys::MAX_REQUEST_SEGMENTS,
        keys::MAX_REQUEST_SIZE,
    ] {
        for value in NO_NUMBERS {
            guest.publish(&Wish::default().with(key, value))?;
            guest.refused_for(key).with_context(|| format!("{key}={value:?}"))?;
            guest.restart()?;
        }
        guest.change(&[(key, None)])?;
    }
    guest.connect(&Wish::default())?.works()
}

fn not_a_flag<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for value in ["2", "yes", "-1", "11"] {
        guest.publish(&Wish::default().with(keys::FEATURE_PERSISTENT, value))?;
        guest.refused_for(keys::FEATURE_PERSISTENT).with_context(|| value.to_owned())?;
        guest.restart()?;
    }
    guest.connect(&Wish::default())?.works()
}

fn huge_value<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for key in [keys::RING_REF, keys::PROTOCOL, keys::MULTI_QUEUE_NUM_QUEUES] {
        for value in ["9".repeat(2000), "\u{7F}".repeat(2000), "é".repeat(1000)] {
            guest.publish(&Wish::default().with(key, &value))?;
            guest.refused_for(key)?;
            let text = guest.backend_key(keys::ERROR)?.context("no error")?;
            must!(text.len() < 512, "the error about {key} has {} bytes", text.len());
            guest.restart()?;
        }
        guest.change(&[(key, None)])?;
    }
    guest.connect(&Wish::default())?.works()
}

fn error_is_absolved<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.publish(&Wish::default().without(keys::RING_REF))?;
    guest.refused_for(keys::RING_REF)?;
    guest.restart()?;
    guest.connect(&Wish::default())?.works()?;
    let text = guest.backend_key(keys::ERROR)?;
    must!(text.is_none(), "still there: {text:?}");
    Ok(())
}

fn unknown_are_ignored<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut wish = Wish::default();
    for (key, value) in [
        ("feature-large-sector-size", "1"),
        ("feature-surprise-remove", "1"),
        ("feature-online-resize", "1"),
        ("target-id", "0"),
        ("eject", "eject"),
        ("queue-0/ring-ref", "garbage"),
        ("queue-99999999999/ring-ref", "1"),
        ("feature-max-indirect-segments", "x"),
        ("a/b/c/d/e/f", "deep"),
        ("sectors", "0"),
    ] {
        wish = wish.with(key, value);
    }
    guest.connect(&wish)?.works()
}

fn changed_while_connected<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    for value in [Some("77"), Some("garbage"), None] {
        for key in [
            keys::RING_REF,
            keys::EVENT_CHANNEL,
            keys::PROTOCOL,
            keys::FEATURE_PERSISTENT,
            keys::RING_PAGE_ORDER,
            keys::MULTI_QUEUE_NUM_QUEUES,
        ] {
            guest.change(&[(key, value), (keys::STATE, Some("4"))])?;
        }
        guest.stays(State::Connected, silence())?;
        connection.works()?;
    }
    Ok(())
}

fn read_afresh<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let first = guest.abi;
    let others = Abi::ALL.into_iter().cycle().skip_while(|abi| *abi != first).take(4);
    for (n, abi) in others.enumerate() {
        guest.abi = abi;
        let wish = Wish {
            ring_pages: [1, 4, 16, 2][n],
            queues: [3, 1, 2, 1][n],
            persistent: n % 2 == 0,
            blocks: n % 3 == 1,
            ..Wish::default()
        };
        let mut connection = guest.connect(&wish).with_context(|| format!("{abi:?}, {wish:?}"))?;
        connection.works().with_context(|| format!("{abi:?}, {wish:?}"))?;
        guest.restart()?;
        connection.take_rings_back()?;
    }
    Ok(())
}

fn ring_not_granted<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    // Low ones are those of a real guest's console and XenStore.
    for reference in ["60000", "4294967295"] {
        guest.publish(&Wish::default().with(keys::RING_REF, reference))?;
        guest.refused_for("ring").with_context(|| reference.to_owned())?;
        guest.restart()?;
    }
    guest.connect(&Wish::default())?.works()
}

fn ring_read_only<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut lender = guest.world.lender(xen_platform::DomId::DOM0)?;
    let mut page = lender.alloc(1)?;
    lender.lend(&mut page, Access::Read)?;
    guest.publish(&Wish::default().with(keys::RING_REF, &page.grants()[0].to_string()))?;
    guest.refused_for("read-only")?;
    guest.restart()?;
    lender.reclaim(&mut page)?;
    guest.connect(&Wish::default())?.works()
}

fn port_not_free<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for port in ["0", "4242", "4294967295"] {
        let mut connection = guest.publish(&Wish::default().with(keys::EVENT_CHANNEL, port))?;
        std::thread::sleep(silence());
        let state = guest.backend_state()?;
        must!(matches!(state, State::InitWait | State::Closing), "the backend is {state}");
        guest.restart()?;
        connection.take_rings_back()?;
    }
    guest.connect(&Wish::default())?.works()
}
