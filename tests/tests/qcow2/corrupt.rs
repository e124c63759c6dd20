//! Images that are broken, before the real daemon: it lives, says what is wrong or fails requests, and others' disks work on. More of
//! them, and faster, are in the driver's own tests.

use std::{fs, time::Duration};

use blkif_proto::{Abi, xenbus::State};
use tests::{
    conformance::rig::{Guest, Raw, Wish, noise, whole},
    world::{Binaries, World},
};
use xen_platform::sim;

use crate::qemu::{Images, disk};

const BROKEN: usize = 24;
/// Longer than a look at an image takes.
const LOOK: Duration = Duration::from_millis(250);

#[test]
fn broken_images_disturb_nobody() {
    let images = Images::new();
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    world.start_backend(&[]).unwrap();
    let path = images.create("good.qcow2", "1M", &["-o", "cluster_size=512"]);
    images.qemu_io("good.qcow2", &["write -P 7 0 512k"]);
    let sound = fs::read(&path).unwrap();
    let vbd = world.guest_with_disk(&disk(&path)).unwrap();
    let mut good: Guest<sim::World> = Guest::of(world.dir(), vbd, Abi::X86_64).unwrap();
    let mut undisturbed = good.connect(&Wish::default()).unwrap();
    let mut numbers = noise(3, 1 << 12).into_iter().map(usize::from);
    let mut random =
        move |below: usize| (((numbers.next().unwrap() << 8) | numbers.next().unwrap()) * below) >> 16;
    let (mut refused, mut served) = (0, 0);
    for number in 0..BROKEN {
        let mut image = sound.clone();
        match number % 4 {
            0 => image.truncate(random(sound.len())),
            1 => image[random(112)] ^= 1 << random(8),
            // Somewhere in the tables, which with small clusters are half of all.
            2 => (0..4).for_each(|_| image[512 + random(sound.len() / 4)] ^= 1 << random(8)),
            // Data, which is no fault of the image.
            _ => image[sound.len() - 1 - random(4096)] ^= 1,
        }
        let name = format!("{number}.qcow2");
        fs::write(images.path(&name), image).unwrap();
        let vbd = world.guest_with_disk(&disk(&images.path(&name))).unwrap();
        let state = world.toolstack().wait_backend(&vbd, "to look", |state| {
            matches!(state, State::InitWait | State::Closing | State::Closed)
        });
        let mut guest: Guest<sim::World> = Guest::of(world.dir(), vbd, Abi::X86_64).unwrap();
        // It waits for the guest before it has looked at the image.
        if state.unwrap() == State::InitWait && guest.stays(State::InitWait, LOOK).is_ok() {
            served += 1;
            let mut connection = guest.connect(&Wish::default()).unwrap();
            let data = connection.lend(&[5; 8 * 4096], xen_platform::Access::ReadWrite).unwrap();
            for place in (0..16u64).map(|place| place * 128) {
                let (read, write) = (connection.id(), connection.id());
                // Okay or not, they are answered.
                _ = connection.batch(&[Raw::read(read, place, &whole(&data))]).unwrap();
                _ = connection.batch(&[Raw::write(write, place, &whole(&data))]).unwrap();
            }
            connection.take_back(data).unwrap();
            drop(connection);
            guest.close().unwrap();
        } else {
            refused += 1;
            guest.refused_for(&name).unwrap();
        }
        undisturbed.works().unwrap();
        world.check_backend().unwrap();
    }
    println!("{refused} refused, {served} served");
    assert!(refused >= BROKEN / 4 && served >= BROKEN / 4);
    drop(undisturbed);
    good.close().unwrap();
    world.stop().unwrap();
}
