//! The device's life in the toolstack's hands (docs/PROTOCOL.md sections 4.1, 4.2, 5.2, 5.5 and 7).

use std::time::Duration;

use anyhow::{Context as _, Result};
use blkif_proto::{keys, xenbus::State};
use xen_platform::session::{Session, Transport};

use crate::{
    conformance::{
        Clause, ONE_ABI,
        rig::{Rig, TRACES, Wish, noise},
    },
    must,
    world::{Disk, Kind, wait_until},
};

/// How long a backend is given to do what it must not do.
const SILENCE: Duration = Duration::from_millis(40);

pub(super) fn clauses() -> Vec<Clause<Rig>> {
    vec![
        Clause {
            name: "toolstack.waits-for-the-script",
            rule: "A backend stays at 2 until the hotplug script says connected, though the frontend is at 3 (0.9).",
            abis: ONE_ABI,
            check: waits_for_the_script,
        },
        Clause {
            name: "toolstack.script-leaves-it-to-us",
            rule: "A script that says opening is told by the backend whether the image could be opened (7.2).",
            abis: ONE_ABI,
            check: script_leaves_it_to_us,
        },
        Clause {
            name: "toolstack.image-in-use",
            rule: "An image that one guest writes to is refused to others, by name, until that guest has closed (7.2).",
            abis: ONE_ABI,
            check: image_in_use,
        },
        Clause {
            name: "toolstack.script-fails",
            rule: "When the script fails the backend does not connect, and does when the script succeeds after all (4.2).",
            abis: ONE_ABI,
            check: script_fails,
        },
        Clause {
            name: "toolstack.kinds-without-script",
            rule: "For kinds without a script there is nothing to wait for, and all features are there at 2 (0.9, 0.26, 7.1).",
            abis: ONE_ABI,
            check: kinds_without_script,
        },
        Clause {
            name: "toolstack.disk-of-every-kind",
            rule: "params is a path for phy, and has a format in front for tap and qdisk (4.1, 7.1).",
            abis: ONE_ABI,
            check: disk_of_every_kind,
        },
        Clause {
            name: "toolstack.detach-idle",
            rule: "A detach while no frontend is active is answered with 6 at once (5.2).",
            abis: ONE_ABI,
            check: detach_idle,
        },
        Clause {
            name: "toolstack.detach-in-use",
            rule: "A detach in use serves on until the frontend has closed, then 6 (0.10, 5.2, 5.5).",
            abis: ONE_ABI,
            check: detach_in_use,
        },
        Clause {
            name: "toolstack.detach-by-force",
            rule: "When the frontend's directory goes first, everything is unmapped and the backend shows 6 (5.5).",
            abis: ONE_ABI,
            check: detach_by_force,
        },
        Clause {
            name: "toolstack.deleted-under-use",
            rule: "When the backend's directory is deleted, everything is unmapped and nothing is written there again (5.1, 5.2).",
            abis: ONE_ABI,
            check: deleted_under_use,
        },
        Clause {
            name: "toolstack.forced-to-6",
            rule: "When the toolstack writes the backend's 6, everything is unmapped at once (5.2).",
            abis: ONE_ABI,
            check: forced_to_6,
        },
        Clause {
            name: "toolstack.gone-only-when-offline",
            rule: "After 6 the device is kept while online is 1, and forgotten when it is 0 (0.11).",
            abis: ONE_ABI,
            check: gone_only_when_offline,
        },
        Clause {
            name: "toolstack.attached-again",
            rule: "The same device may be attached again with another image (5.5).",
            abis: ONE_ABI,
            check: attached_again,
        },
        Clause {
            name: "toolstack.guest-dies",
            rule: "A guest that is destroyed with requests under way takes nobody with it, and its disk serves its successor (5.5).",
            abis: ONE_ABI,
            check: guest_dies,
        },
        Clause {
            name: "toolstack.before-the-daemon",
            rule: "Devices that are there before the backend starts are found, also with a frontend that waits (5.1, 7.2).",
            abis: ONE_ABI,
            check: before_the_daemon,
        },
        Clause {
            name: "toolstack.many-disks",
            rule: "Any number of disks come and go while others are in use (7.2).",
            abis: ONE_ABI,
            check: many_disks,
        },
        Clause {
            name: "toolstack.half-made-device",
            rule: "A directory that lacks a key is named in the error and served when it is complete (4.1).",
            abis: ONE_ABI,
            check: half_made_device,
        },
        Clause {
            name: "toolstack.error-in-both-places",
            rule: "An error is told in the device's directory and below error/ of the backend's domain, and goes with the device (5.5).",
            abis: ONE_ABI,
            check: error_in_both_places,
        },
    ]
}

/// Changes nodes as the toolstack.
fn write<T: Transport>(store: &mut Session<T>, nodes: &[(String, &str)]) -> Result<()> {
    Ok(store.transact(|t| nodes.iter().try_for_each(|(path, value)| t.write(path, value)))?)
}

fn waits_for_the_script(rig: &mut Rig) -> Result<()> {
    let disk = rig.image()?.disk();
    rig.start()?;
    let mut guest = rig.guest_unattached(&disk)?;
    guest.wait_backend(State::InitWait)?;
    let mut connection = guest.publish(&Wish::default())?;
    guest.stays(State::InitWait, SILENCE)?;
    rig.world.toolstack().run_script(&guest.vbd, &disk)?;
    guest.wait_backend(State::Connected)?;
    connection.works()
}

fn script_leaves_it_to_us(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    rig.start()?;
    for (target, word) in [(image.path().display().to_string(), "connected"), ("/nowhere".into(), "error")] {
        let mut guest = rig.guest_unattached(&Disk::new(target))?;
        guest.wait_backend(State::InitWait)?;
        let node = |key| format!("{}/{key}", guest.vbd.backend);
        let (status, error) = (node(keys::HOTPLUG_STATUS), node(keys::HOTPLUG_ERROR));
        let toolstack = rig.world.toolstack();
        write(toolstack.store(), &[(status.clone(), "opening")])?;
        wait_until("the script's answer", Duration::from_secs(2), || {
            Ok((toolstack.read(&status)?.as_deref() == Some(word)).then_some(()))
        })?;
        let told = toolstack.read(&error)?.is_some_and(|text| text.contains("/nowhere"));
        must!(told == (word == "error"), "{word}, and what is wrong is told: {told}");
        if word == "connected" {
            guest.connect(&Wish::default())?.works()?;
        }
    }
    Ok(())
}

fn image_in_use(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let mut first = rig.guest_with(&image.disk())?;
    let mut connection = first.connect(&Wish::default())?;
    connection.works()?;
    for writable in [true, false] {
        let mut second = rig.guest_with(&Disk { writable, ..image.disk() })?;
        second.refused_for(&format!("{} is in use by guest {}", image.path().display(), first.vbd.guest))?;
        rig.world.toolstack().force_detach(&second.vbd)?;
        connection.works()?;
    }
    first.close()?;
    rig.world.toolstack().ask_to_close(&first.vbd)?;
    let readers = [(); 2].map(|()| rig.guest_with(&Disk { writable: false, ..image.disk() }));
    for reader in readers {
        reader?.connect(&Wish::default())?.read(TRACES, 4096)?;
    }
    Ok(())
}

fn script_fails(rig: &mut Rig) -> Result<()> {
    let disk = rig.image()?.disk();
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest_unattached(&disk)?;
    guest.wait_backend(State::InitWait)?;
    let mut connection = guest.publish(&Wish::default())?;
    let node = |key| format!("{}/{key}", guest.vbd.backend);
    let failure = [(node(keys::HOTPLUG_ERROR), "no such file"), (node(keys::HOTPLUG_STATUS), "error")];
    write(rig.world.toolstack().store(), &failure)?;
    std::thread::sleep(SILENCE);
    must!(guest.backend_state()? != State::Connected, "connected in spite of the script");
    bystander.check()?;
    rig.world.toolstack().run_script(&guest.vbd, &disk)?;
    guest.wait_backend(State::Connected)?;
    connection.works()
}

fn kinds_without_script(rig: &mut Rig) -> Result<()> {
    let mut disk = rig.image()?.disk();
    disk.kind = Kind::Qdisk;
    rig.start()?;
    let mut guest = rig.guest_unattached(&disk)?;
    guest.wait_backend(State::InitWait)?;
    let offered = guest.offers()?;
    must!(offered.operations.discard.is_some(), "no discard at state 2");
    guest.connect(&Wish::default())?.works()?;
    must!(guest.offers()? == offered, "what is offered has changed");
    Ok(())
}

fn disk_of_every_kind(rig: &mut Rig) -> Result<()> {
    for kind in [Kind::Phy, Kind::Tap, Kind::Qdisk] {
        let image = rig.image()?;
        let data = noise(1, 4096);
        image.write(TRACES, &data)?;
        let mut disk = image.disk();
        disk.kind = kind;
        let mut guest = rig.guest_with(&disk)?;
        let mut connection = guest.connect(&Wish::default()).with_context(|| format!("{kind:?}"))?;
        must!(connection.read(TRACES, 4096)? == data, "{kind:?}: not the image's bytes");
    }
    Ok(())
}

fn detach_idle(rig: &mut Rig) -> Result<()> {
    // Never connected; connected and closed.
    for used in [false, true] {
        let mut guest = rig.guest()?;
        if used {
            guest.connect(&Wish::default())?.works()?;
            guest.restart()?;
        }
        rig.world.toolstack().ask_to_close(&guest.vbd)?;
        guest.wait_backend(State::Closed)?;
        rig.world.toolstack().delete_nodes(&guest.vbd)?;
    }
    Ok(())
}

fn detach_in_use(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::default())?;
    rig.world.toolstack().ask_to_close(&guest.vbd)?;
    guest.stays(State::Closing, SILENCE)?;
    connection.works()?;
    guest.set_state(State::Closing)?;
    guest.stays(State::Closing, SILENCE)?;
    connection.works()?;
    guest.set_state(State::Closed)?;
    guest.wait_backend(State::Closed)?;
    connection.take_rings_back()?;
    rig.world.toolstack().delete_nodes(&guest.vbd)?;
    std::thread::sleep(SILENCE);
    let left = rig.world.toolstack().read(&guest.vbd.backend)?;
    must!(left.is_none(), "the backend's directory was made again");
    Ok(())
}

fn detach_by_force(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    for state in [State::Initialised, State::Connected] {
        let mut guest = rig.guest()?;
        let mut connection = guest.publish(&Wish::persistent().state(state))?;
        connection.works()?;
        rig.world.toolstack().force_detach(&guest.vbd)?;
        connection.take_rings_back()?;
        std::thread::sleep(SILENCE);
        let store = rig.world.toolstack();
        must!(store.read(&guest.vbd.backend)?.is_none(), "the backend's directory was made again");
        must!(store.read(&guest.vbd.frontend)?.is_none(), "the frontend's directory was made again");
        bystander.check()?;
    }
    Ok(())
}

fn deleted_under_use(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::persistent())?;
    connection.works()?;
    rig.world.toolstack().delete_nodes(&guest.vbd)?;
    connection.take_rings_back_within(Duration::from_secs(5))?;
    std::thread::sleep(SILENCE);
    let toolstack = rig.world.toolstack();
    must!(toolstack.read(&guest.vbd.backend)?.is_none(), "the backend's directory was made again");
    bystander.check()
}

fn forced_to_6(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    let mut connection = guest.connect(&Wish::persistent())?;
    connection.works()?;
    let state = format!("{}/{}", guest.vbd.backend, keys::STATE);
    write(rig.world.toolstack().store(), &[(state, State::Closed.as_str())])?;
    connection.take_rings_back_within(Duration::from_secs(5))?;
    guest.stays(State::Closed, SILENCE)
}

fn gone_only_when_offline(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    guest.connect(&Wish::default())?.works()?;
    guest.close()?;
    guest.set_state(State::Initialising)?;
    guest.connect(&Wish::default())?.works()?;
    let online = format!("{}/{}", guest.vbd.backend, keys::ONLINE);
    write(rig.world.toolstack().store(), &[(online, "0")])?;
    guest.close()?;
    guest.set_state(State::Initialising)?;
    guest.stays(State::Closed, SILENCE)
}

fn attached_again(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    for round in 0..4 {
        let image = rig.image()?;
        let data = noise(round, 4096);
        image.write(TRACES, &data)?;
        // The toolstack does not wait between the two.
        rig.world.toolstack().force_detach(&guest.vbd)?;
        rig.world.toolstack().attach(guest.vbd.guest, &image.disk())?;
        let mut connection = guest.connect(&Wish::default()).with_context(|| format!("round {round}"))?;
        must!(connection.read(TRACES, 4096)? == data, "round {round}: not the new image");
    }
    Ok(())
}

fn guest_dies(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let image = rig.image()?;
    let data = noise(5, 4096);
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish { queues: 2, ..Wish::persistent() })?;
    connection.write(TRACES, &data)?;
    let requests = connection.reads(0..32)?;
    for request in &requests {
        connection.queue().push(&request.entries(rig.abi))?;
    }
    connection.queue().kick()?;
    rig.world.toolstack().destroy_guest(guest.vbd.guest, std::slice::from_ref(&guest.vbd))?;
    bystander.check()?;
    let mut guest = rig.guest_with(&image.disk())?;
    must!(guest.connect(&Wish::default())?.read(TRACES, 4096)? == data, "the disk lost what was written");
    bystander.check()
}

fn before_the_daemon(rig: &mut Rig) -> Result<()> {
    let disk = rig.image()?.disk();
    let mut waiting = rig.guest_unattached(&disk)?;
    let mut other = rig.image()?.disk();
    other.kind = Kind::Qdisk;
    let mut bold = rig.guest_unattached(&other)?;
    // This one does not wait for state 2 either.
    let mut connection = bold.publish(&Wish::default())?;
    rig.start()?;
    bold.wait_backend(State::Connected)?;
    connection.works()?;
    waiting.wait_backend(State::InitWait)?;
    rig.world.toolstack().run_script(&waiting.vbd, &disk)?;
    waiting.connect(&Wish::default())?.works()
}

fn many_disks(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let guest = rig.world.toolstack().create_guest(1 << 14)?;
    let mut all = Vec::new();
    for index in 0..24 {
        let image = rig.image()?;
        let mut disk = image.disk();
        disk.index = index;
        let vbd = rig.world.attach(guest, &disk)?;
        let mut guest = rig.guest_of(vbd)?;
        let mut connection = guest.connect(&Wish::default())?;
        connection.write(TRACES, &noise(index.into(), 4096))?;
        all.push((guest, connection, image));
    }
    for (n, (guest, connection, image)) in all.iter_mut().enumerate() {
        must!(image.read(TRACES, 4096)? == noise(n as u64, 4096), "disk {n} has another disk's data");
        if n % 2 == 0 {
            guest.close()?;
            rig.world.toolstack().detach(&guest.vbd)?;
        } else {
            connection.works()?;
        }
    }
    for (n, (_, connection, _)) in all.iter_mut().enumerate().filter(|(n, _)| n % 2 == 1) {
        connection.works().with_context(|| format!("disk {n}"))?;
    }
    bystander.check()
}

fn half_made_device(rig: &mut Rig) -> Result<()> {
    rig.start()?;
    for key in [keys::MODE, keys::FRONTEND_ID, keys::FRONTEND] {
        let mut disk = rig.image()?.disk();
        disk.kind = Kind::Qdisk;
        let mut guest = rig.guest_unattached(&disk)?;
        guest.wait_backend(State::InitWait)?;
        // As if the device had been made without the key.
        let dir = guest.vbd.backend.clone();
        let node = format!("{dir}/{key}");
        let value = rig.world.toolstack().read(&node)?.context("no such key")?;
        let store = rig.world.toolstack().store();
        store.transact(|t| {
            t.remove(&node)?;
            t.write(&format!("{dir}/{}", keys::STATE), State::Initialising.as_str())
        })?;
        // Without the frontend's path it may be half deleted as well, and nothing is written where something was deleted.
        if key != keys::FRONTEND {
            wait_until("the error", Duration::from_secs(5), || {
                let text = guest.backend_key(keys::ERROR)?;
                Ok(text.is_some_and(|text| text.contains(key)).then_some(()))
            })
            .with_context(|| key.to_owned())?;
        }
        write(rig.world.toolstack().store(), &[(node, &value)])?;
        guest.connect(&Wish::default()).with_context(|| key.to_owned())?.works()?;
    }
    Ok(())
}

fn error_in_both_places(rig: &mut Rig) -> Result<()> {
    let mut guest = rig.guest()?;
    guest.publish(&Wish::default().without(keys::RING_REF))?;
    guest.refused_for(keys::RING_REF)?;
    let home = guest.vbd.backend.replace("/local/domain/0/", "/local/domain/0/error/");
    let path = format!("{home}/{}", keys::ERROR);
    wait_until("the error", Duration::from_secs(2), || Ok(rig.world.toolstack().read(&path)?.map(drop)))?;
    rig.world.toolstack().force_detach(&guest.vbd)?;
    wait_until("the error to go", Duration::from_secs(2), || {
        Ok(rig.world.toolstack().read(&path)?.is_none().then_some(()))
    })
}
