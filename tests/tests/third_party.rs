//! Programs that nobody here wrote, over the whole path: NBD client, `blkfront nbd`, the ring, `blkback`, the image.
//!
//! Every cell of the matrix (ring pages, queues, how large requests are carried) goes through all loads:
//!
//! ```text
//!   fio       random writes of mixed sizes, read back and verified by CRC32C; then mixed reads and writes at depth 32
//!   nbdcopy   an image in and out again, checksums of all three copies
//!   mkfs      an ext4 file system with files in it, made on the disk, checked by e2fsck there and in the image
//! ```
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tests::world::{Binaries, Disk, Process, Vbd, World, tuning::Tuning, wait_until};

/// One test for each cell: ring pages, queues, segments.
macro_rules! matrix {
    ($($name:ident: $ring_pages:literal, $queues:literal, $segments:literal;)*) => {
        $(#[test]
        fn $name() {
            all_loads(&Tuning {
                ring_pages: Some($ring_pages),
                queues: Some($queues),
                segments: Some($segments.into()),
                ..Tuning::default()
            });
        })*
    };
}

matrix! {
    one_page_one_queue_direct: 1, 1, "direct";
    one_page_one_queue_indirect: 1, 1, "indirect";
    one_page_one_queue_blocks: 1, 1, "blocks";
    one_page_two_queues_direct: 1, 2, "direct";
    one_page_two_queues_indirect: 1, 2, "indirect";
    one_page_two_queues_blocks: 1, 2, "blocks";
    sixteen_pages_one_queue_direct: 16, 1, "direct";
    sixteen_pages_one_queue_indirect: 16, 1, "indirect";
    sixteen_pages_one_queue_blocks: 16, 1, "blocks";
    sixteen_pages_two_queues_direct: 16, 2, "direct";
    sixteen_pages_two_queues_indirect: 16, 2, "indirect";
    sixteen_pages_two_queues_blocks: 16, 2, "blocks";
}

/// A disk that any data of the loads fits on.
const DISK_BYTES: u64 = 64 << 20;

/// Longest run of one program.
const PATIENCE: Duration = Duration::from_secs(120);

/// A guest's disk as an NBD export, and the image behind it.
struct Export {
    world: World,
    vbd: Vbd,
    server: Process,
    uri: String,
    image: PathBuf,
}

impl Export {
    fn start(tuning: &Tuning) -> Self {
        let mut world = World::start(Binaries::build().unwrap()).unwrap();
        let image = world.dir().join("disk.img");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        world.start_backend(&tuning.backend()).unwrap();
        let vbd = world.guest_with_disk(&Disk::new(image.to_str().unwrap())).unwrap();
        let (server, socket) = world.serve_nbd(&vbd, &tuning.frontend()).unwrap();
        Self { uri: format!("nbd+unix:///?socket={}", socket.display()), world, vbd, server, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.dir().join(name)
    }

    fn stop(mut self) {
        self.server.stop().unwrap();
        self.world.toolstack().detach(&self.vbd).unwrap();
        self.world.stop().unwrap();
    }
}

fn all_loads(tuning: &Tuning) {
    let export = Export::start(tuning);
    fio_verifies_what_it_wrote(&export);
    fio_mixes_reads_and_writes(&export);
    nbdcopy_both_ways(&export);
    ext4_on_the_disk(&export);
    export.stop();
}

fn fio_verifies_what_it_wrote(export: &Export) {
    fio(
        export,
        &[
            "--rw=randwrite",
            "--bsrange=4k-256k",
            "--size=48m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--end_fsync=1",
        ],
    );
}

fn fio_mixes_reads_and_writes(export: &Export) {
    fio(export, &["--rw=randrw", "--rwmixread=60", "--bs=4k", "--size=64m", "--time_based", "--runtime=2"]);
}

fn fio(export: &Export, arguments: &[&str]) {
    let mut command = Command::new("fio");
    command
        .args(["--name=load", "--ioengine=nbd", "--iodepth=32", "--randrepeat=0", "--eta=never"])
        .arg(format!("--uri={}", export.uri))
        .args(arguments)
        // It leaves files of its own where it runs.
        .current_dir(export.world.dir());
    run(export, command);
}

fn nbdcopy_both_ways(export: &Export) {
    let (image, back) = (export.path("in.img"), export.path("out.img"));
    make_image(&image);
    let mut command = Command::new("nbdcopy");
    command.arg("--flush").arg(&image).arg(&export.uri);
    run(export, command);
    let mut command = Command::new("nbdcopy");
    command.arg(&export.uri).arg(&back);
    run(export, command);
    let expected = digest(&image);
    assert_eq!(digest(&export.image), expected, "the image behind the disk");
    assert_eq!(digest(&back), expected, "what was copied out");
}

/// The file system is made on the export itself where FUSE is to be had, else in a file that goes in and out by nbdcopy.
fn ext4_on_the_disk(export: &Export) {
    let files = export.path("files");
    fs::create_dir(&files).unwrap();
    for number in 0..200_usize {
        let bytes: Vec<u8> =
            (0..number * 977).map(|at| u8::try_from((at * 31 + number) % 251).unwrap()).collect();
        fs::write(files.join(format!("file-{number}")), bytes).unwrap();
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_ok() {
        let mount = Mount::new(export);
        make_file_system(export, &files, &mount.disk());
        check_file_system(export, &mount.disk());
    } else {
        println!("/dev/fuse is not usable: the file system goes in by nbdcopy");
        let (made, back) = (export.path("made.img"), export.path("back.img"));
        File::create(&made).unwrap().set_len(DISK_BYTES).unwrap();
        make_file_system(export, &files, &made);
        let disk = PathBuf::from(&export.uri);
        for (from, to) in [(&made, &disk), (&disk, &back)] {
            let mut command = Command::new("nbdcopy");
            command.arg("--flush").arg(from).arg(to);
            run(export, command);
        }
        check_file_system(export, &back);
    }
    check_file_system(export, &export.image);
    for number in [1, 42, 199] {
        let name = format!("file-{number}");
        let mut command = system_program("debugfs");
        command.args(["-R", &format!("cat /{name}")]).arg(&export.image);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, fs::read(files.join(&name)).unwrap(), "{name} in the image");
    }
}

fn make_file_system(export: &Export, files: &Path, disk: &Path) {
    let mut command = system_program("mkfs.ext4");
    command.args(["-q", "-F", "-d"]).arg(files).arg(disk);
    run(export, command);
}

fn check_file_system(export: &Export, disk: &Path) {
    let mut command = system_program("e2fsck");
    command.arg("-fn").arg(disk);
    run(export, command);
}

/// The export as a file, by `nbdfuse`.
struct Mount {
    folder: PathBuf,
    server: Process,
}

impl Mount {
    fn new(export: &Export) -> Self {
        let folder = export.path("mount");
        fs::create_dir(&folder).unwrap();
        let mut command = Command::new("nbdfuse");
        command.arg(&folder).arg(&export.uri);
        let mut server = Process::spawn_logged("nbdfuse", &mut command, &export.path("nbdfuse.log")).unwrap();
        wait_until("nbdfuse's file", Duration::from_secs(20), || {
            server.check_alive()?;
            Ok(folder.join("nbd").exists().then_some(()))
        })
        .unwrap();
        Self { folder, server }
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("nbd")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // nbdfuse ends by unmounting, on SIGTERM too, unless somebody still has the file open for a moment.
        for _ in 0..50 {
            if self.server.stop().is_ok() || self.server.check_alive().is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Runs a program to its end; a failure shows what it said.
fn run(export: &Export, mut command: Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    let log = export.path("program.log");
    fs::write(&log, "").unwrap();
    let mut process = Process::spawn_logged(&name, &mut command, &log)
        .unwrap_or_else(|error| panic!("{error:#}; tests/run setup installs what is needed"));
    if let Err(error) = process.wait_success(PATIENCE) {
        panic!("{command:?}: {error:#}");
    }
}

/// A program that may lie where only root's search path looks.
fn system_program(name: &str) -> Command {
    let found = ["/usr/sbin", "/sbin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.exists());
    Command::new(found.unwrap_or_else(|| name.into()))
}

/// An image of the disk's size: data that does not repeat, zeroes, holes.
fn make_image(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for number in 0..DISK_BYTES >> 20 {
        match number % 3 {
            0 => {
                let chunk: Vec<u8> = (0..1 << 17)
                    .flat_map(|_| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        state.to_le_bytes()
                    })
                    .collect();
                file.write_all(&chunk).unwrap();
            }
            1 => file.write_all(&vec![0; 1 << 20]).unwrap(),
            _ => drop(file.seek(SeekFrom::Current(1 << 20)).unwrap()),
        }
    }
    file.set_len(DISK_BYTES).unwrap();
}

fn digest(path: &Path) -> Vec<u8> {
    Sha256::digest(fs::read(path).unwrap()).to_vec()
}
