//! Images that change their size, are not there, or are none (docs/PROTOCOL.md sections 2.4, 5.5 and 7.2).

use std::{fs::File, os::unix::net::UnixListener, time::Duration};

use anyhow::{Context as _, Result};
use blkif_proto::{keys, xenbus::State};
use xen_platform::FrontWorld as _;

use crate::{
    conformance::{
        Clause, ONE_ABI,
        rig::{IMAGE_BYTES, Image, Raw, Rig, States, Wish, whole},
    },
    must,
    world::{Disk, wait_until},
};

pub(super) fn clauses() -> Vec<Clause<Rig>> {
    vec![
        Clause {
            name: "resize.grows",
            rule: "A new size is told with sectors and the state written again, and counts at once (0.23, 5.5).",
            abis: ONE_ABI,
            check: grows,
        },
        Clause {
            name: "resize.shrinks",
            rule: "Requests beyond the end of a disk that shrank are errors, whether it was noticed yet or not (2.4, 5.5).",
            abis: ONE_ABI,
            check: shrinks,
        },
        Clause {
            name: "image.missing",
            rule: "An image that is not there is named in the error; the device is served once it is there (7.2).",
            abis: ONE_ABI,
            check: missing,
        },
        Clause {
            name: "image.not-served",
            rule: "What is no raw image is refused with a reason, and no other disk is disturbed (7.2).",
            abis: ONE_ABI,
            check: not_served,
        },
        Clause {
            name: "image.disappears",
            rule: "An image that is deleted under use goes on to be served while it is open (5.5).",
            abis: ONE_ABI,
            check: disappears,
        },
    ]
}

/// Makes the backend measure the image, as `xl` does after it has changed it.
fn measure(rig: &mut Rig, dir: &str, image: &Image) -> Result<()> {
    let (path, value) = (format!("{dir}/{}", keys::PARAMS), image.path().display().to_string());
    Ok(rig.world.toolstack().store().transact(|t| t.write(&path, &value))?)
}

fn grows(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish::default())?;
    let before = guest.disk()?.sectors;
    let mut states = States::watch(guest.world.store()?, &guest.vbd.backend)?;
    let pages = connection.pages(1, 0x55)?;
    connection.error(&Raw::write(1, before, &whole(&pages)))?;
    image.file().set_len(2 * IMAGE_BYTES)?;
    measure(rig, &guest.vbd.backend.clone(), &image)?;
    wait_until("the new size", Duration::from_secs(5), || {
        Ok((guest.disk()?.sectors == 2 * before).then_some(()))
    })?;
    connection.okay(&Raw::write(2, before, &whole(&pages)))?;
    connection.okay(&Raw::write(3, 2 * before - 8, &whole(&pages)))?;
    connection.error(&Raw::write(4, 2 * before, &whole(&pages)))?;
    connection.take_back(pages)?;
    let seen = states.gather(Duration::from_millis(40))?;
    must!(seen == [State::Connected; 2], "the guest was not made to look: {seen:?}");
    Ok(())
}

fn shrinks(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish::default())?;
    let before = guest.disk()?.sectors;
    image.file().set_len(IMAGE_BYTES / 2)?;
    let pages = connection.pages(2, 0x55)?;
    // Not noticed yet: there is nothing to be read, and half a request is none.
    connection.error(&Raw::read(1, before - 16, &whole(&pages)))?;
    connection.error(&Raw::read(2, before / 2 - 8, &whole(&pages)))?;
    measure(rig, &guest.vbd.backend.clone(), &image)?;
    wait_until("the new size", Duration::from_secs(5), || {
        Ok((guest.disk()?.sectors == before / 2).then_some(()))
    })?;
    connection.error(&Raw::write(3, before - 16, &whole(&pages)))?;
    connection.error(&Raw::write(4, before / 2 - 8, &whole(&pages)))?;
    connection.okay(&Raw::write(5, before / 2 - 16, &whole(&pages)))?;
    connection.take_back(pages)?;
    must!(image.file().metadata()?.len() == IMAGE_BYTES / 2, "the image was made longer");
    connection.works()
}

fn missing(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let path = rig.world.dir().join("later.img");
    let mut guest = rig.guest_with(&Disk::new(path.display().to_string()))?;
    guest.refused_for("later.img")?;
    bystander.check()?;
    File::create_new(&path)?.set_len(IMAGE_BYTES)?;
    guest.restart()?;
    guest.connect(&Wish::default())?.works()
}

fn not_served(rig: &mut Rig) -> Result<()> {
    let mut bystander = rig.bystander()?;
    let dir = rig.world.dir().to_owned();
    File::create_new(dir.join("empty.img"))?;
    UnixListener::bind(dir.join("socket"))?;
    let name = |name: &str| dir.join(name).display().to_string();
    for (target, word) in [
        (name("."), "image"),
        (name("empty.img"), "empty.img"),
        (name("socket"), "socket"),
        ("/dev/null".to_owned(), "/dev/null"),
        ("null:many".to_owned(), "params"),
        (String::new(), "params"),
    ] {
        let mut guest = rig.guest_with(&Disk::new(target.clone()))?;
        guest.refused_for(word).with_context(|| format!("{target:?}"))?;
        rig.world.toolstack().force_detach(&guest.vbd)?;
        bystander.check()?;
    }
    Ok(())
}

fn disappears(rig: &mut Rig) -> Result<()> {
    let image = rig.image()?;
    let mut guest = rig.guest_with(&image.disk())?;
    let mut connection = guest.connect(&Wish::default())?;
    std::fs::remove_file(image.path())?;
    connection.works()?;
    guest.close()?;
    guest.set_state(State::Initialising)?;
    guest.refused_for("image")
}
