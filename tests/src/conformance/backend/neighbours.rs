//! Hostile guests, seen from the others (docs/PROTOCOL.md section 8.2, and section 0 as far as it is about harm).

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use blkif_proto::{GrantRef, Opcode, Segment, Status, keys, xenbus::State};
use ringbuf::Field;
use xen_platform::sim;

use crate::{
    conformance::{
        Clause, ONE_ABI,
        rig::{Connection, Guest, IMAGE_BYTES, Raw, Rig, TRACES, Wish, noise, whole},
    },
    must,
    world::wait_until,
};

pub(super) fn clauses() -> Vec<Clause<Rig>> {
    vec![
        Clause {
            name: "neighbours.undisturbed-by-any-offence",
            rule: "Whatever one guest does wrong, every other disk goes on working (0.15, 8.2).",
            abis: ONE_ABI,
            check: undisturbed,
        },
        Clause {
            name: "neighbours.watch-flood",
            rule: "A guest that rewrites its nodes without end wakes its own device at most: changes merge (XSA-349).",
            abis: ONE_ABI,
            check: watch_flood,
        },
        Clause {
            name: "neighbours.toggling",
            rule: "A guest that connects and disconnects faster than it is served leaks nothing and may connect in the end (XSA-350).",
            abis: ONE_ABI,
            check: toggling,
        },
        Clause {
            name: "neighbours.keys-change-while-read",
            rule: "Each key is read once for a connection: keys that change meanwhile give one connection or none (8.2).",
            abis: ONE_ABI,
            check: keys_change,
        },
        Clause {
            name: "neighbours.storm-of-events",
            rule: "A storm of events from one guest leaves the others their share (1.5, XSA-332).",
            abis: ONE_ABI,
            check: storm,
        },
        Clause {
            name: "neighbours.another-guests-pages",
            rule: "A guest cannot name another guest's pages (2.4).",
            abis: ONE_ABI,
            check: another_guests_pages,
        },
        Clause {
            name: "neighbours.full-ring-left-alone",
            rule: "A guest that never takes its answers holds nobody up (1.4).",
            abis: ONE_ABI,
            check: answers_not_taken,
        },
        Clause {
            name: "neighbours.image-is-not-extended",
            rule: "No race of a request with its check writes beyond the disk (0.14, 2.4).",
            abis: ONE_ABI,
            check: image_not_extended,
        },
        Clause {
            name: "neighbours.many-broken-at-once",
            rule: "Any number of guests may break their rings at the same time (0.15, 1.5).",
            abis: ONE_ABI,
            check: many_broken,
        },
        Clause {
            name: "neighbours.guest-without-quota",
            rule: "A guest that has used up its part of XenStore harms itself (6.6).",
            abis: ONE_ABI,
            check: guest_without_quota,
        },
    ]
}

type Offence = fn(&mut Guest<sim::World>, &mut Connection<sim::World>) -> Result<()>;

const OFFENCES: [(&str, Offence); 12] = [
    ("an impossible index", |_, connection| {
        connection.queue().set_index(Field::ReqProd, 0x8000_0000);
        connection.queue().ring_bell()
    }),
    ("an unknown operation", |_, connection| connection.unsupported(&Raw::data(Opcode(200), 1, 0, &[]))),
    ("a foreign reference", |_, connection| {
        connection.error(&Raw::write(1, 0, &[Segment::page(GrantRef(u32::MAX)); 11]))
    }),
    ("a request beyond the disk", |_, connection| {
        let pages = connection.pages(1, 0)?;
        connection.error(&Raw::write(1, u64::MAX, &whole(&pages)))
    }),
    ("segments beyond their page", |_, connection| {
        let segment = connection.segments(1, 0)?[0];
        connection.error(&Raw::read(1, 0, &[Segment { first_sect: 9, last_sect: 250, ..segment }]))
    }),
    ("65535 indirect segments", |_, connection| {
        connection.error(&Raw::indirect(Opcode::READ, 1, 0, 0xFFFF, &[GrantRef(1); 8]))
    }),
    ("a discard of everything and more", |_, connection| {
        connection.error(&Raw::discard(1, u64::MAX, u64::MAX))
    }),
    ("a state that is none", |guest, _| guest.write(keys::STATE, "connected")),
    ("no state", |guest, _| guest.change(&[(keys::STATE, None)])),
    ("huge keys", |guest, _| {
        let huge = "7".repeat(2000);
        guest.change(&[
            (keys::RING_REF, Some(&huge)),
            (keys::PROTOCOL, Some(&huge)),
            (keys::STATE, Some("3")),
        ])
    }),
    ("no keys", |guest, _| {
        guest.change(&[(keys::RING_REF, None), (keys::EVENT_CHANNEL, None), (keys::STATE, Some("3"))])
    }),
    ("another ABI than it says", |guest, _| {
        guest.change(&[(keys::PROTOCOL, Some("x86_32-abi")), (keys::STATE, Some("3"))])
    }),
];

fn undisturbed(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest()?;
    for (name, offence) in OFFENCES {
        let mut connection = guest.connect(&Wish::default()).context(name)?;
        offence(&mut guest, &mut connection).context(name)?;
        bystander.check().context(name)?;
        guest.restart().context(name)?;
        connection.take_rings_back().context(name)?;
        bystander.check().context(name)?;
    }
    guest.connect(&Wish::default())?.works()
}

fn watch_flood(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::default())?;
    for round in 0..250 {
        for _ in 0..40 {
            guest.set_state(State::Connected)?;
            guest.write("noise", "x")?;
        }
        if round % 25 == 0 {
            bystander.check()?;
            connection.works()?;
        }
    }
    // Nothing has piled up: what is asked now is answered now.
    let asked = std::time::Instant::now();
    guest.close()?;
    must!(asked.elapsed() < Duration::from_secs(2), "the backend needed {:?} to close", asked.elapsed());
    bystander.check()
}

fn toggling(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest()?;
    let mut old = Vec::new();
    for round in 0..60 {
        old.push(guest.publish(&Wish {
            queues: 1 + round % 3,
            persistent: round % 2 == 0,
            ..Wish::default()
        })?);
        let states = [State::Closing, State::Closed, State::Initialising, State::Connected];
        for state in &states[round as usize % 3..3] {
            guest.set_state(*state)?;
        }
        thread::sleep(Duration::from_micros(u64::from(round % 7) * 300));
    }
    guest.restart()?;
    for (round, connection) in old.iter_mut().enumerate() {
        connection.take_rings_back().with_context(|| format!("round {round}"))?;
    }
    guest.connect(&Wish::default())?.works()?;
    bystander.check()
}

fn keys_change(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest()?;
    let mut other = rig.guest_of(guest.vbd.clone())?;
    for round in 0..40_usize {
        let mut connection = guest.publish(&Wish::queues(1 + (round % 2) as u32))?;
        for n in 0..12 {
            let (order, queues) = ([None, Some("5"), Some("31"), Some("x")][n % 4], [None, Some("4")][n % 2]);
            other.change(&[
                (keys::RING_PAGE_ORDER, order),
                (keys::MULTI_QUEUE_NUM_QUEUES, queues),
                (keys::RING_REF, Some(["7", "4294967295", ""][n % 3])),
                (keys::PROTOCOL, Some(["x86_32-abi", "x86_64-abi"][n % 2])),
            ])?;
        }
        guest.restart().with_context(|| format!("round {round}"))?;
        connection.take_rings_back().with_context(|| format!("round {round}"))?;
        guest.change(&[(keys::RING_PAGE_ORDER, None), (keys::MULTI_QUEUE_NUM_QUEUES, None)])?;
    }
    guest.connect(&Wish::default())?.works()?;
    bystander.check()
}

fn storm(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::queues(4))?;
    let mut queues = std::mem::take(&mut connection.queues);
    thread::scope(|scope| {
        let storm = scope.spawn(move || {
            for _ in 0..20_000 {
                queues.iter_mut().try_for_each(|queue| queue.ring_bell())?;
            }
            anyhow::Ok(queues)
        });
        while !storm.is_finished() {
            bystander.check()?;
        }
        connection.queues = storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))??;
        connection.works()
    })
}

fn another_guests_pages(rig: &mut Rig) -> Result<()> {
    let mut victim = rig.guest()?;
    let mut victims = victim.connect(&Wish::persistent())?;
    let secret = noise(1, 4096);
    let page = victims.lend(&secret, xen_platform::Access::ReadWrite)?;
    victims.okay(&Raw::write(1, TRACES, &whole(&page)))?;

    let image = rig.image()?;
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish::persistent())?;
    let foreign = [Segment::page(page.grants()[0])];
    // The number may mean a page of its own to this guest, never one of the other's.
    connection.ask(&Raw::write(1, TRACES, &foreign))?;
    connection.ask(&Raw::read(2, 4096, &foreign))?;
    must!(image.read(TRACES, 4096)? != secret, "a guest has written another guest's page to its disk");
    must!(crate::conformance::rig::bytes(&page) == secret, "a guest has read into another guest's page");
    Ok(())
}

fn answers_not_taken(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guests = Vec::new();
    for _ in 0..4 {
        let mut guest = rig.guest()?;
        let mut connection = guest.connect(&Wish::default())?;
        for request in &connection.reads(0..32)? {
            connection.queue().push(&request.entries(rig.abi))?;
        }
        connection.queue().kick()?;
        guests.push((guest, connection));
    }
    for _ in 0..20 {
        bystander.check()?;
    }
    for (_, connection) in &mut guests {
        for _ in 0..32 {
            connection.queue().answer()?;
        }
        connection.works()?;
    }
    Ok(())
}

fn image_not_extended(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish::default())?;
    let capacity = guest.disk()?.sectors;
    let pages = connection.pages(11, 0x55)?;
    let good = Raw::write(1, capacity - 88, &whole(&pages));
    for sector in [capacity - 80, capacity, capacity + 4096, 1 << 40] {
        for _ in 0..15 {
            let evil = Raw { sector, ..good.clone() };
            super::races::flicker(&mut connection, rig.abi, &good, &evil)?;
        }
    }
    let status = connection.ask(&Raw { sector: capacity, ..good })?;
    must!(status == Status::ERROR, "{status}");
    must!(image.file().metadata()?.len() == IMAGE_BYTES, "the image was made longer");
    connection.take_back(pages)
}

fn many_broken(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guests = Vec::new();
    for _ in 0..12 {
        let mut guest = rig.guest()?;
        let connection = guest.connect(&Wish::queues(2))?;
        guests.push((guest, connection));
    }
    for (_, connection) in &mut guests {
        for queue in &mut connection.queues {
            queue.set_index(Field::ReqProd, 500);
            queue.ring_bell()?;
        }
    }
    for (guest, connection) in &mut guests {
        guest.wait_backend(State::Closing)?;
        guest.restart()?;
        connection.take_rings_back()?;
        guest.connect(&Wish::default())?.works()?;
    }
    bystander.check()
}

fn guest_without_quota(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest()?;
    let refused = (0..2000).find(|n| guest.write(&format!("junk/{n}"), "x").is_err());
    must!(refused.is_some(), "the simulated XenStore knows no quota");
    // Its own keys may not fit any more; whatever comes of it, nobody else is concerned.
    _ = guest.publish(&Wish::default());
    bystander.check()?;
    guest.change(&[("junk", None)])?;
    wait_until("the guest to get room", Duration::from_secs(2), || {
        Ok(guest.write("probe", "x").is_ok().then_some(()))
    })?;
    guest.restart()?;
    guest.connect(&Wish::default())?.works()?;
    bystander.check()
}
