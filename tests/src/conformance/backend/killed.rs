//! The backend's process is killed and started again (docs/PROTOCOL.md section 5.5 and rule 0.24).

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use blkif_proto::{Opcode, Status, xenbus::State};
use nix::sys::signal::Signal;
use ringbuf::Field;
use xen_platform::{EventChannels as _, FrontWorld as _, sim};

use crate::{
    conformance::{
        Clause, EVERY_ABI, ONE_ABI,
        rig::{Connection, Guest, Raw, Rig, States, TRACES, Wish, patience, whole},
    },
    must,
    world::wait_until,
};

pub(super) fn clauses() -> Vec<Clause<Rig>> {
    vec![
        Clause {
            name: "recovery.killed-idle",
            rule: "A backend that was killed attaches again without the guest: 2, 4, same ring, same port (0.24, 5.5).",
            abis: EVERY_ABI,
            check: killed_idle,
        },
        Clause {
            name: "recovery.killed-with-requests",
            rule: "What was not answered when the backend was killed, and what comes before the next one, is done and answered once (5.5).",
            abis: EVERY_ABI,
            check: killed_with_requests,
        },
        Clause {
            name: "recovery.upgraded-under-load",
            rule: "Another program takes the backend's place without the guest, and nothing is done again (5.5).",
            abis: ONE_ABI,
            check: upgraded_under_load,
        },
        Clause {
            name: "recovery.upgrade-refused",
            rule: "A program that does not read the backend's logs does not take its place, and the backend goes on (5.5).",
            abis: ONE_ABI,
            check: upgrade_refused,
        },
        Clause {
            name: "recovery.killed-and-log-lost",
            rule: "Requests of which nobody knows whether they were done are not answered; the device fails with a reason (0.24, 5.5).",
            abis: ONE_ABI,
            check: log_lost,
        },
        Clause {
            name: "recovery.killed-then-guest-anew",
            rule: "A guest may close and begin anew while no backend is there (0.11, 5.5).",
            abis: ONE_ABI,
            check: killed_then_guest_anew,
        },
        Clause {
            name: "recovery.killed-then-detached",
            rule: "A device that was detached while no backend was there is closed by the next (5.2, 7.2).",
            abis: ONE_ABI,
            check: killed_then_detached,
        },
        Clause {
            name: "recovery.acknowledged-is-written",
            rule: "What was answered okay before a kill is in the image (2.5, 5.5).",
            abis: ONE_ABI,
            check: acknowledged_is_written,
        },
        Clause {
            name: "recovery.killed-lets-pages-go",
            rule: "A killed backend's mappings end with it (5.5, 6.3).",
            abis: ONE_ABI,
            check: killed_lets_pages_go,
        },
        Clause {
            name: "neighbours.memory-is-bounded",
            rule: "No guest makes the daemon hoard memory: floods of watches, connects and requests leave it as it was (XSA-349).",
            abis: ONE_ABI,
            check: memory_is_bounded,
        },
    ]
}

/// Publishes requests without anybody to take them.
fn publish_reads(
    connection: &mut Connection<sim::World>,
    guest: &Guest<sim::World>,
    count: u64,
) -> Result<()> {
    for request in connection.reads(0..count)? {
        connection.queue().push(&request.entries(guest.abi))?;
    }
    connection.queue().kick()
}

fn killed_idle(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::persistent())?;
    for round in 0..4 {
        connection.works()?;
        let answered = connection.queue().index(Field::RspProd);
        rig.world.kill_backend()?;
        must!(guest.backend_state()? == State::Connected, "somebody wrote the state");
        let mut states = States::watch(guest.world.store()?, &guest.vbd.backend)?;
        states.forget();
        rig.start()?;
        // It says 4 anew: the old one's is no sign of life.
        states.until(State::Connected).with_context(|| format!("round {round}"))?;
        connection.works().with_context(|| format!("round {round}"))?;
        must!(connection.queue().index(Field::RspProd) > answered, "answers are missing");
    }
    guest.close()?;
    connection.take_rings_back()
}

/// The ring is kept full of writes while backends come and go.
fn killed_with_requests(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    for wish in [Wish::default(), Wish::blocks(), Wish::persistent()] {
        let mut guest = rig.guest_with(&image.disk())?;
        let mut connection = guest.connect(&wish)?;
        let pages: Vec<_> = (0..4).map(|byte| connection.pages(20, byte + 1)).collect::<Result<_>>()?;
        let (mut strides, mut next) = (HashMap::new(), 0_u64);
        for round in 0..8_u64 {
            let until = Instant::now() + Duration::from_micros(700 * round);
            loop {
                let most = if wish.blocks { 20 } else { 11 };
                let segments = &whole(&pages[(next % 4) as usize])[..1 + (next % most) as usize];
                let raw = Raw::write(next, TRACES + 160 * (next % 60), segments);
                let entries = raw.entries(guest.abi);
                if connection.queue().ring.free() >= entries.len() as u32 {
                    strides.insert(next, entries.len() as u32);
                    connection.queue().push(&entries)?;
                    next += 1;
                    continue;
                }
                connection.queue().kick()?;
                if Instant::now() > until {
                    break;
                }
                let answer = connection.queue().answer_to(&mut strides)?;
                must!(answer.status == Status::OKAY, "{answer:?}");
            }
            rig.world.kill_backend()?;
            rig.start()?;
        }
        // Each is answered once: `answer_to` knows no id a second time.
        while !strides.is_empty() {
            let answer = connection.queue().answer_to(&mut strides)?;
            must!(answer.status == Status::OKAY, "{answer:?}");
        }
        connection.queue().silence(Duration::from_millis(20))?;
        for last in next.saturating_sub(60)..next {
            let most = if wish.blocks { 20 } else { 11 };
            let there = image.read(TRACES + 160 * (last % 60), 4096 * (1 + (last % most) as usize))?;
            must!(there.iter().all(|byte| *byte == (last % 4) as u8 + 1), "write {last} is not in the image");
        }
        guest.close()?;
    }
    Ok(())
}

fn upgraded_under_load(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::queues(2))?;
    let page = connection.pages(11, 0x5A)?;
    let process = rig.world.backend()?.id();
    let mut strides = HashMap::new();
    let mut next = 0_u64;
    let log = rig.world.dir().join("blkback.log");
    for upgrades in 1..=3 {
        let world = &rig.world;
        thread::scope(|scope| {
            let upgrade = scope.spawn(|| world.upgrade_backend());
            while !upgrade.is_finished() {
                while connection.queue().ring.free() > 0 {
                    let raw = Raw::write(
                        next,
                        TRACES + 8 * (next % 100),
                        &whole(&page)[..1 + (next % 11) as usize],
                    );
                    strides.insert(next, 1);
                    connection.queue().push(&raw.entries(guest.abi))?;
                    next += 1;
                }
                connection.queue().kick()?;
                let answer = connection.queue().answer_to(&mut strides)?;
                must!(answer.status == Status::OKAY, "{answer:?}");
            }
            let (worked, said) = upgrade.join().map_err(|_| anyhow!("panicked"))??;
            must!(worked && said.contains("since"), "{said}");
            Ok(())
        })?;
        // Nothing is asked of the second queue, which may be taken over later than the first answers.
        wait_until("both queues to be taken over", patience(), || {
            let taken_over = std::fs::read_to_string(&log)?.matches("again=").count();
            Ok((taken_over == 2 * upgrades).then_some(()))
        })?;
    }
    while !strides.is_empty() {
        connection.queue().answer_to(&mut strides)?;
    }
    must!(rig.world.backend()?.id() == process, "another process serves");
    let log = std::fs::read_to_string(&log)?;
    must!(log.matches("again=0 untold=0").count() == 6, "requests were done again, or told again: {log}");
    guest.close()?;
    connection.take_rings_back()
}

fn upgrade_refused(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::default())?;
    let lock = rig.world.run_dir().join("lock");
    let holder = std::fs::read_to_string(&lock)?;
    std::fs::write(&lock, holder.replace("logs 1", "logs 99"))?;
    let (worked, said) = rig.world.upgrade_backend()?;
    must!(
        !worked && said.contains("writes logs of version 99") && said.contains("nothing was done"),
        "{said}"
    );
    std::fs::write(&lock, &holder)?;
    // A program that does not start.
    std::fs::write(rig.world.run_dir().join("upgrade"), "/bin/false")?;
    rig.world.backend()?.signal(Signal::SIGUSR2)?;
    connection.works()?;
    must!(std::fs::read_to_string(&lock)? == holder, "it was followed");
    rig.world.check_backend()
}

fn log_lost(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::default())?;
    connection.works()?;
    rig.world.kill_backend()?;
    std::fs::remove_dir_all(rig.world.run_dir().join("inflight"))?;
    publish_reads(&mut connection, &guest, 9)?;
    rig.start()?;
    guest.refused_for("9 requests")?;
    connection.queue().silence(Duration::from_millis(40))?;
    guest.restart()?;
    guest.connect(&Wish::default())?.works()
}

fn killed_then_guest_anew(rig: &mut Rig) -> Result<()> {
    for state in [State::Initialising, State::Closing, State::Closed] {
        let mut guest = rig.guest()?;
        let mut old = guest.connect(&Wish::queues(2))?;
        old.works()?;
        rig.world.kill_backend()?;
        guest.set_state(state)?;
        old.take_rings_back_within(Duration::from_secs(2))?;
        rig.start()?;
        if state == State::Initialising {
            guest.wait_backend(State::InitWait)?;
        } else {
            guest.wait_backend(if state == State::Closing { State::Closing } else { State::Closed })?;
            guest.restart()?;
        }
        guest.connect(&Wish::default()).with_context(|| format!("guest at {state}"))?.works()?;
    }
    Ok(())
}

fn killed_then_detached(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::default())?;
    connection.works()?;
    rig.world.kill_backend()?;
    guest.set_state(State::Closed)?;
    rig.world.toolstack().ask_to_close(&guest.vbd)?;
    rig.start()?;
    guest.wait_backend(State::Closed)?;
    rig.world.toolstack().delete_nodes(&guest.vbd)?;
    connection.take_rings_back()
}

fn acknowledged_is_written(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish::default())?;
    let page = connection.pages(1, 0x99)?;
    let mut pushed = 0_u64;
    let mut acknowledged = Vec::new();
    let until = Instant::now() + Duration::from_millis(120);
    let mut killed = false;
    while !killed || connection.queue().index(Field::RspProd) > acknowledged.len() as u32 {
        if !killed && Instant::now() > until {
            rig.world.kill_backend()?;
            killed = true;
        }
        while !killed && connection.queue().ring.free() > 0 && pushed < 4000 {
            let raw = Raw::write(pushed, TRACES + 8 * pushed, &whole(&page));
            connection.queue().push(&raw.entries(rig.abi))?;
            pushed += 1;
        }
        let queue = connection.queue();
        if queue.ring.publish().is_needed() {
            queue.events.notify(queue.port)?;
        }
        while let Some(slot) = queue.answer_within(1, Duration::ZERO)? {
            acknowledged.push(blkif_proto::Response::parse(&slot).id);
        }
    }
    must!(!acknowledged.is_empty(), "nothing was acknowledged");
    for id in acknowledged {
        let there = image.read(TRACES + 8 * id, 4096)?;
        must!(there.iter().all(|byte| *byte == 0x99), "write {id} was acknowledged and is not in the image");
    }
    Ok(())
}

fn killed_lets_pages_go(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::persistent())?;
    let page = connection.pages(11, 0)?;
    connection.okay(&Raw::read(1, 0, &whole(&page)))?;
    rig.world.kill_backend()?;
    connection.take_rings_back_within(Duration::from_secs(2))
}

fn memory_is_bounded(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut abuse = |rounds: u32| -> Result<()> {
        for round in 0..rounds {
            let mut connection = guest.connect(&Wish { queues: 1 + round % 4, ..Wish::persistent() })?;
            for _ in 0..200 {
                guest.set_state(State::Connected)?;
            }
            let pages = connection.pages(600, 0)?;
            connection.indirect(Opcode::READ, 0, &whole(&pages))?;
            connection.take_back(pages)?;
            guest.restart()?;
        }
        Ok(())
    };
    abuse(5)?;
    let before = resident(rig)?;
    abuse(40)?;
    let after = resident(rig)?;
    must!(after < before + 8 * 1024, "{before} KiB before, {after} KiB after");
    Ok(())
}

/// Memory of the daemon's process, in KiB.
fn resident(rig: &mut Rig) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.world.serving()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
