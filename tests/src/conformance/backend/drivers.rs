//! What single drivers do with the states (docs/PROTOCOL.md sections 5.4, 5.5 and 8.4).

use anyhow::Result;
use blkif_proto::{keys, xenbus::State};
use xen_platform::FrontWorld;

use super::indirect;
use crate::conformance::{
    Clause, EVERY_ABI, ONE_ABI,
    rig::{Guest, Wish},
};

pub(super) fn clauses<W: FrontWorld>() -> Vec<Clause<Guest<W>>> {
    vec![
        Clause {
            name: "drivers.windows-closes-first",
            rule: "Windows closes through 5 and 6 before it ever connects, and waits for each answer (0.8, 5.4).",
            abis: ONE_ABI,
            check: windows_closes_first,
        },
        Clause {
            name: "drivers.kexec",
            rule: "A new kernel drives the device through 5, 6 and 1 before it connects (5.5).",
            abis: ONE_ABI,
            check: kexec,
        },
        Clause {
            name: "drivers.grub-then-another-driver",
            rule: "GRUB goes from 3 to 6, empties its keys and leaves 1; the next driver is served (0.28, 0.31, 8.4).",
            abis: EVERY_ABI,
            check: grub,
        },
        Clause {
            name: "drivers.ovmf-then-another-driver",
            rule: "OVMF connects in one step, closes through exactly 5 and 6 and removes its keys (0.28, 8.4).",
            abis: EVERY_ABI,
            check: ovmf,
        },
        Clause {
            name: "drivers.segment-blocks-then-another-driver",
            rule: "A driver that finds the keys of segment blocks left by another has its indirect requests carried (3.1).",
            abis: EVERY_ABI,
            check: segment_blocks,
        },
    ]
}

fn windows_closes_first<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.wait_backend(State::InitWait)?;
    for _ in 0..3 {
        guest.close()?;
        guest.set_state(State::Initialising)?;
        guest.wait_backend(State::InitWait)?;
        let wish = Wish::default().with(keys::MULTI_QUEUE_NUM_QUEUES, "1").with("target-id", "0");
        guest.connect(&wish)?.works()?;
    }
    Ok(())
}

fn kexec<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    let mut old = guest.connect(&Wish { queues: 2, ..Wish::persistent() })?;
    let requests = old.reads(0..32)?;
    for request in &requests {
        old.queue().push(&request.entries(guest.abi))?;
    }
    old.queue().kick()?;
    guest.close()?;
    guest.set_state(State::Initialising)?;
    guest.wait_backend(State::InitWait)?;
    guest.connect(&Wish::default())?.works()?;
    old.take_rings_back()
}

fn grub<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for _ in 0..2 {
        guest.wait_backend(State::InitWait)?;
        let mut connection = guest.publish(&Wish::default().without(keys::FEATURE_PERSISTENT))?;
        guest.wait_backend(State::Connected)?;
        connection.works()?;
        guest.set_state(State::Closed)?;
        guest.wait_backend(State::Closed)?;
        connection.take_rings_back()?;
        guest.change(&[(keys::RING_REF, Some("")), (keys::EVENT_CHANNEL, Some(""))])?;
        guest.set_state(State::Initialising)?;
    }
    guest.connect(&Wish { queues: 2, persistent: true, ..Wish::default() })?.works()
}

fn segment_blocks<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    guest.connect(&Wish::blocks())?.works()?;
    guest.close()?;
    guest.set_state(State::Initialising)?;
    let left = Wish::default().with(keys::MAX_REQUEST_SEGMENTS, "24").with(keys::MAX_REQUEST_SIZE, "98304");
    let mut connection = guest.connect(&left)?;
    for segments in [1, 11, 20] {
        indirect::round_trip(&mut connection, segments)?;
    }
    connection.works()
}

fn ovmf<W: FrontWorld>(guest: &mut Guest<W>) -> Result<()> {
    for _ in 0..2 {
        guest.wait_backend(State::InitWait)?;
        let mut connection = guest.publish(&Wish::default().state(State::Connected))?;
        guest.wait_backend(State::Connected)?;
        connection.works()?;
        guest.close()?;
        guest.set_state(State::Initialising)?;
        guest.wait_backend(State::InitWait)?;
        guest.change(&[(keys::RING_REF, None), (keys::EVENT_CHANNEL, None), (keys::PROTOCOL, None)])?;
    }
    guest.connect(&Wish::queues(2))?.works()
}
