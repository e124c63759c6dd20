//! The commands that docs/OPERATING.md has an administrator type at a running daemon, in their order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

use tests::world::{Binaries, Disk, World};

const PAGE: &str = include_str!("../../docs/OPERATING.md");

/// Lines after a `$` in blocks of the kind `console`.
fn commands() -> Vec<&'static str> {
    let blocks = PAGE.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).collect()
}

#[test]
fn every_command_does_what_it_says() {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    let srv = world.dir().join("srv");
    fs::create_dir(&srv).unwrap();
    for image in ["guest.img", "disc.iso", "other.iso"] {
        fs::File::create_new(srv.join(image)).unwrap().set_len(1 << 20).unwrap();
    }
    let run_dir = world.run_dir().display().to_string();
    world.start_backend(&["--metrics".into(), format!("unix:{run_dir}/metrics.sock")]).unwrap();
    let target = |image: &str| srv.join(image).display().to_string();
    let disk = world.guest_with_disk(&Disk::new(target("guest.img"))).unwrap();
    let drive = Disk { index: 1, cdrom: true, writable: false, ..Disk::new(target("disc.iso")) };
    let drive = world.attach(disk.guest, &drive).unwrap();
    let guests = [disk, drive].map(|vbd| world.serve_nbd(&vbd, &[]).unwrap());

    let commands = commands();
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let typed = command.replace("/srv", &srv.display().to_string()).replace("/run/blkback", &run_dir);
        let typed = match typed.strip_prefix("blkctl ") {
            Some(rest) => format!("{} --run-dir {run_dir} {rest}", program(&world)),
            None => typed,
        };
        let output = Command::new("sh").args(["-c", &typed]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
    assert_eq!(fs::metadata(srv.join("guest.img")).unwrap().len(), 2 << 30);
    assert_eq!(fs::metadata(srv.join("guest.copy")).unwrap().len(), 2 << 30);
    for (mut guest, _) in guests {
        guest.stop().unwrap();
    }
    world.stop().unwrap();
}

fn program(world: &World) -> String {
    Path::new(world.blkctl().get_program()).display().to_string()
}
