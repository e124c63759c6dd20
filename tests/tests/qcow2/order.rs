//! The daemon can die, and the power fail, between any two writes to an image's file: every state of the file in between is looked
//! at, as `qemu-img` sees it. The file is on a [medium](tests::medium) that remembers them all.

use std::{fs, path::Path};

use blkif_proto::Abi;
use tests::{
    conformance::rig::{Connection, Guest, Raw, Wish, noise, whole},
    medium::{Event, Medium},
    world::{Binaries, Disk, World},
};
use xen_platform::sim;

use crate::qemu::{Images, check};

/// Bytes of the disk; of the medium, which the image's file may fill.
const DISK: usize = 1 << 20;
const MEDIUM: usize = 4 << 20;
const SECTORS: usize = DISK / 512;
const BATCHES: usize = 24;
/// States of the file that are looked at, of all that there were.
const LOOKS: usize = 50;

/// A sector of the write number `id`, by which it can be told.
fn sector(id: u64) -> [u8; 512] {
    let mut sector = [0; 512];
    sector.as_chunks_mut::<8>().0.fill(id.to_le_bytes());
    sector
}

struct Written {
    medium: Medium,
    /// Of each sector the number of the last write that was answered, after so many events of the medium.
    answered: Vec<(usize, Vec<u64>)>,
}

/// Puts an image on the medium, has a guest write to it, and notes what it was told.
fn written(image: &Path, base: u64) -> Written {
    let medium = Medium::mount(MEDIUM).unwrap();
    {
        let made = fs::read(image).unwrap();
        let mut tape = medium.tape();
        tape.bytes[..made.len()].copy_from_slice(&made);
        tape.events.extend([Event::Write(0, made), Event::Flush]);
    }
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    world.start_backend(&[]).unwrap();
    let vbd = world.guest_with_disk(&Disk::new(format!("qcow2:{}", medium.path().display()))).unwrap();
    let mut guest = Guest::of(world.dir(), vbd, Abi::X86_64).unwrap();
    let mut connection = guest.connect(&Wish::default()).unwrap();
    let mut numbers = noise(5, 4096).into_iter().map(usize::from).cycle();
    let mut random = move |below: usize| numbers.next().unwrap_or(0) * below / 256;
    let mut sectors = vec![base; SECTORS];
    let mut answered = vec![(medium.tape().events.len(), sectors.clone())];
    for _ in 0..BATCHES {
        batch(&mut connection, &mut sectors, &mut random);
        answered.push((medium.tape().events.len(), sectors.clone()));
    }
    guest.close().unwrap();
    world.stop().unwrap();
    Written { medium, answered }
}

/// Some writes that do not touch each other, at times a flush or a discard.
fn batch(
    connection: &mut Connection<sim::World>,
    sectors: &mut [u64],
    random: &mut impl FnMut(usize) -> usize,
) {
    let first = random(16);
    let (mut requests, mut lent) = (Vec::new(), Vec::new());
    for n in 0..2 + random(8) {
        let id = connection.id();
        let pages = 1 + random(8);
        let at = (first + n) % 16 * (SECTORS / 16) + random(SECTORS / 16 - pages * 8 + 1);
        let range = at..at + pages * 8;
        match random(12) {
            0 => requests.push(Raw::data(blkif_proto::Opcode::FLUSH, id, 0, &[])),
            1 => {
                requests.push(Raw::discard(id, at as u64, range.len() as u64));
                // Zeros, or as before.
                sectors[range].fill(u64::MAX);
            }
            _ => {
                let access = connection.access_to_write();
                let data = connection.lend(&sector(id).repeat(range.len()), access).unwrap();
                requests.push(Raw::write(id, at as u64, &whole(&data)));
                lent.push(data);
                sectors[range].fill(id);
            }
        }
    }
    connection.batch_okay(&requests).unwrap();
    lent.into_iter().for_each(|data| connection.take_back(data).unwrap());
}

/// Looks at states of the file: nothing is wrong with it but leaks, and what had been answered is there.
fn look(images: &Images, written: &Written, options: &[&str]) {
    let tape = written.medium.tape();
    let begin = written.answered[0].0;
    let count = tape.events.len() - begin;
    assert!(count > LOOKS, "{options:?}: only {count} writes reached the file");
    let (file, raw) = (images.path("left.qcow2"), images.path("left.raw"));
    for look in 0..LOOKS {
        let cut = begin + count * (look + 1) / LOOKS;
        fs::write(&file, tape.left(cut, || true)).unwrap();
        check(&file);
        images.qemu_img(&["convert", "-f", "qcow2", "-O", "raw", "left.qcow2", "left.raw"]);
        let there = fs::read(&raw).unwrap();
        let last = written.answered.iter().rposition(|(events, _)| *events <= cut).unwrap();
        let told = &written.answered[last].1;
        // What is under way may be there in part.
        let under_way = &written.answered.get(last + 1).unwrap_or(&written.answered[last]).1;
        for (place, bytes) in there.as_chunks::<512>().0.iter().enumerate() {
            let id = u64::from_le_bytes(bytes.as_chunks::<8>().0[0]);
            let (told, under_way) = (told[place], under_way[place]);
            let discarded = [told, under_way].contains(&u64::MAX);
            assert!(
                discarded || [told, under_way].contains(&id) && *bytes == sector(id),
                "{options:?}: after event {cut}, sector {place} has {id}, and {told} was answered"
            );
        }
    }
}

#[test]
fn every_write_leaves_a_sound_image() {
    // Small clusters have the most tables: all of them grow, and so does the list of blocks of reference counts.
    for options in [
        &["-o", "cluster_size=512,refcount_bits=64"][..],
        &["-o", "cluster_size=512,compat=0.10"],
        &["-o", "cluster_size=4096"],
    ] {
        let images = Images::new();
        let image = images.create("a.qcow2", &DISK.to_string(), options);
        look(&images, &written(&image, 0), options);
    }
}

#[test]
fn every_write_leaves_a_sound_image_over_others() {
    const OLD: u64 = 1;
    let images = Images::new();
    fs::write(images.path("base.raw"), sector(OLD).repeat(SECTORS)).unwrap();
    // Compressed clusters, which are read and replaced.
    let compressed = ["convert", "-c", "-O", "qcow2", "-o", "cluster_size=4096", "base.raw", "a.qcow2"];
    images.qemu_img(&compressed);
    look(&images, &written(&images.path("a.qcow2"), OLD), &compressed);
    // Clusters and tables that a snapshot has too.
    let plain = ["convert", "-O", "qcow2", "-o", "cluster_size=512", "base.raw", "b.qcow2"];
    images.qemu_img(&plain);
    images.qemu_img(&["snapshot", "-c", "before", "b.qcow2"]);
    let written = written(&images.path("b.qcow2"), OLD);
    look(&images, &written, &plain);
    fs::write(images.path("c.qcow2"), &written.medium.tape().bytes).unwrap();
    images.qemu_img(&["convert", "-l", "before", "-O", "raw", "c.qcow2", "c.raw"]);
    assert!(
        fs::read(images.path("c.raw")).unwrap() == sector(OLD).repeat(SECTORS),
        "the snapshot has changed"
    );
}
