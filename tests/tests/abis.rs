//! The real daemon and the real tool over rings in other layouts than this machine's own: what a 32-bit guest lays out on a
//! 64-bit host.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

use blkif_proto::Abi;
use tests::world::{Binaries, Disk, World, tuning::Tuning};

/// Bytes of the disk; what is copied ends in the middle of a page.
const DISK: usize = 8 << 20;

#[test]
fn the_pair_understands_itself_in_every_layout() {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    world.start_backend(&[]).unwrap();
    let [image, source, back] = ["disk.img", "in.img", "out.img"].map(|name| world.dir().join(name));
    let disk = Disk::new(image.to_str().unwrap());
    for abi in [Abi::X86_32, Abi::Arm, Abi::X86_64] {
        for (segments, ring_pages, queues) in
            [("direct", 1, 1), ("indirect", 4, 2), ("blocks", 4, 2), ("blocks", 1, 1)]
        {
            let what = format!("{} {segments}", abi.as_protocol());
            fs::write(&image, vec![0; DISK]).unwrap();
            let bytes = pattern(what.len() * 31 + queues as usize);
            fs::write(&source, &bytes).unwrap();
            let vbd = world.guest_with_disk(&disk).unwrap();
            let tuning = Tuning {
                abi: Some(abi.as_protocol().into()),
                segments: Some(segments.into()),
                ring_pages: Some(ring_pages),
                queues: Some(queues),
                ..Tuning::default()
            };
            let blkfront = |words: &[&str]| {
                let mut command = world.blkfront(&vbd);
                command.args(tuning.frontend()).args(words);
                output(&mut command)
            };
            let told: serde_json::Value = serde_json::from_slice(&blkfront(&["info", "--json"])).unwrap();
            let negotiated = &told["negotiated"];
            assert_eq!(negotiated["abi"], abi.as_protocol());
            assert_eq!(negotiated["ring_entries"], abi.ring_entries(ring_pages), "{what}");
            assert_eq!(negotiated["segments"].as_str().unwrap().split(' ').next_back(), Some(segments));

            blkfront(&["copy", "in", text(&source)]);
            let length = bytes.len().to_string();
            blkfront(&["copy", "out", text(&back), "--length", &length]);
            assert!(fs::read(&image).unwrap()[..bytes.len()] == bytes, "{what}: the image");
            assert!(fs::read(&back).unwrap() == bytes, "{what}: what came back");
            fs::remove_file(&back).unwrap();
            world.toolstack().detach(&vbd).unwrap();
            world.toolstack().destroy_guest(vbd.guest, &[]).unwrap();
        }
    }
    world.stop().unwrap();
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..DISK - 2560).map(|at| (at / 512 * 7 + at % 251 + seed).to_le_bytes()[0]).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a program writes to its standard output, if it succeeds.
fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
