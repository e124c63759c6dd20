//! `--self-test-sandbox`: goes in as the daemon would, and tries.
//!
//! Unsafe stands here because system calls are made by their numbers, so that nothing stands between the trial and the kernel
//! (ADR-0011). What makes it sound: no argument is an address of anything.
#![expect(unsafe_code, reason = "system calls by number; see the module documentation")]

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    libc::{self, c_long},
};

use super::{
    Sandbox,
    keeper::Charge,
    outside::{How, Outside as _},
};
use crate::storage::{Action, Image, ImageOptions, IoMemory, Op, Part, Storage as _, Uring};

/// What is in the image of the trial.
const CONTENTS: &[u8; 512] = &[0x5A; 512];

/// A folder with an image and with ways out of it.
#[derive(Debug)]
pub struct Trial {
    folder: PathBuf,
    logs: Option<PathBuf>,
}

/// What has not gone as it should.
struct Report {
    failed: usize,
}

impl Trial {
    /// Makes the folder in `run_dir`, and that for `logs` if it is not there. Errors: they cannot be made.
    pub fn prepare(run_dir: &Path, logs: Option<PathBuf>) -> io::Result<Self> {
        let trial = Self { folder: run_dir.join("self-test"), logs };
        trial.logs.as_ref().map_or(Ok(()), fs::create_dir_all)?;
        // What a killed one has left.
        _ = fs::remove_dir_all(&trial.folder);
        fs::create_dir_all(&trial.folder)?;
        fs::write(trial.folder.join("image"), CONTENTS)?;
        symlink("/etc/passwd", trial.folder.join("link"))?;
        Ok(trial)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes it.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(self.folder)
    }
}

/// Tries everything, one line each, and tells whether all is as it should be. None: without the sandbox, which must then show.
pub fn run(sandbox: Option<&Sandbox>, charge: &Charge, trial: &Trial) -> io::Result<ExitCode> {
    let filters = sandbox.map(|sandbox| sandbox.enter(charge)).transpose()?;
    let mut report = Report { failed: 0 };
    let image = trial.folder.join("image");
    report.allowed("open an image in a folder for images", || {
        charge.line.open(&image, How { write: true, direct: false }).map(drop)
    });
    report.allowed("read an image through an io_uring", || read_by_uring(charge, &image));
    if let Some(logs) = &trial.logs {
        report.allowed("make, rename and remove a log", || make_log(logs));
    }
    report.allowed("start a thread, which takes memory", || {
        let thread = thread::Builder::new().spawn(|| vec![1_u8; 16 << 20].len())?;
        thread.join().map(drop).map_err(|_| io::ErrorKind::Other.into())
    });
    report.allowed("see who holds a lock", || File::open("/proc/locks").map(drop));
    if let Some(filters) = &filters {
        filters.seal()?;
    }
    for path in ["/etc/passwd", "..", "../self-test/image", "../lock", "link"] {
        let what = format!("have {path} opened as an image");
        report.refused(&what, || charge.line.open(&trial.folder.join(path), How::default()).map(drop));
    }
    // Not every system has the second.
    for path in ["/etc/passwd", "/etc/shadow"].into_iter().filter(|path| Path::new(path).exists()) {
        report.refused(&format!("read {path}"), || File::open(path).map(drop));
    }
    report.refused("open an image by its path", || File::open(&image).map(drop));
    report.refused("make a file beside the logs", || {
        let path = trial.folder.join("made");
        File::create_new(&path).and_then(|_| fs::remove_file(&path))
    });
    for file in ["mem", "environ", "root/etc/passwd"] {
        let path = format!("/proc/{}/{file}", charge.keeper);
        report.refused(&format!("look into the keeper's {file}"), || File::open(&path).map(drop));
    }
    report.refused("run a program", || Command::new("/bin/true").status().map(drop));
    let network = sandbox.is_some_and(|sandbox| sandbox.network);
    for (what, number, arguments) in CALLS.iter().chain(if network { &[] } else { CONNECTING }) {
        report.refused(what, || call(*number, *arguments));
    }
    report.refused("signal another process", || Ok(nix::sys::signal::kill(charge.keeper, None)?));
    println!("{}", if report.failed == 0 { "as it should be" } else { "NOT as it should be" });
    Ok(ExitCode::from(u8::from(report.failed > 0)))
}

/// Calls that would fail for another reason, or do no harm, where they are allowed.
const CALLS: &[(&str, c_long, [c_long; 4])] = &[
    ("execute a program", libc::SYS_execve, [0; 4]),
    ("make a process", libc::SYS_clone, [libc::CLONE_SIGHAND as c_long, 0, 0, 0]),
    ("trace a process", libc::SYS_ptrace, [-1, 0, 0, 0]),
    ("read another process' memory", libc::SYS_process_vm_readv, [-1, 0, 0, 0]),
    ("take another process' descriptor", libc::SYS_pidfd_getfd, [-1, 0, 0, 0]),
    ("use local services", libc::SYS_socket, [libc::AF_UNIX as c_long, libc::SOCK_STREAM as c_long, 0, 0]),
    ("send datagrams", libc::SYS_socket, [libc::AF_INET as c_long, libc::SOCK_DGRAM as c_long, 0, 0]),
    ("forge packets", libc::SYS_socket, [libc::AF_PACKET as c_long, libc::SOCK_RAW as c_long, 0, 0]),
    ("give a socket a port", libc::SYS_bind, [-1, 0, 0, 0]),
    ("listen on a socket", libc::SYS_listen, [-1, 0, 0, 0]),
    ("mount a file system", libc::SYS_mount, [0; 4]),
    ("change the root", libc::SYS_pivot_root, [0; 4]),
    ("become root", libc::SYS_setuid, [0; 4]),
    ("have capabilities", libc::SYS_capset, [0; 4]),
    ("enter a new namespace", libc::SYS_unshare, [0; 4]),
    ("enter another's namespace", libc::SYS_setns, [-1, 0, 0, 0]),
    ("load a BPF program", libc::SYS_bpf, [-1, 0, 0, 0]),
    ("watch performance", libc::SYS_perf_event_open, [0; 4]),
    ("load a kernel module", libc::SYS_finit_module, [-1, 0, -1, 0]),
    ("load another kernel", libc::SYS_kexec_load, [0, 0, 0, -1]),
    ("handle page faults", libc::SYS_userfaultfd, [-1, 0, 0, 0]),
    ("use keys", libc::SYS_keyctl, [-1, 0, 0, 0]),
    ("open by handle", libc::SYS_open_by_handle_at, [-1, 0, 0, 0]),
    ("execute memory", libc::SYS_mmap, [0, 4096, (libc::PROT_READ | libc::PROT_EXEC) as c_long, 0]),
    ("make memory executable", libc::SYS_mprotect, [1, 0, libc::PROT_EXEC as c_long, 0]),
    ("set up another io_uring", libc::SYS_io_uring_setup, [0; 4]),
    ("use credentials with an io_uring", libc::SYS_io_uring_register, [-1, 9, 0, 0]),
    ("push a character into a terminal", libc::SYS_ioctl, [-1, 0x5412, 0, 0]),
    ("make an event channel to a virtual interrupt", libc::SYS_ioctl, [-1, 0x4_4500, 0, 0]),
];

/// What only clients of clusters do.
const CONNECTING: &[(&str, c_long, [c_long; 4])] = &[
    ("use the network", libc::SYS_socket, [libc::AF_INET as c_long, libc::SOCK_STREAM as c_long, 0, 0]),
    ("connect a socket", libc::SYS_connect, [-1, 0, 0, 0]),
];

/// Makes a system call by number, none of whose arguments is an address.
fn call(number: c_long, [a, b, c, d]: [c_long; 4]) -> io::Result<()> {
    // SAFETY: the arguments in `CALLS` are null, or no addresses: the kernel reads and writes nothing of ours. What would change this
    // process is asked for in a way that is refused anyway, or changes only what it may do.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
    Ok(Errno::result(result).map(drop)?)
}

impl Report {
    /// Must fail because it is forbidden; any other error shows that nobody forbade it.
    fn refused(&mut self, what: &str, try_it: impl FnOnce() -> io::Result<()>) {
        let outcome = try_it();
        let errno = outcome.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw);
        match errno {
            Some(errno @ (Errno::EPERM | Errno::EACCES | Errno::EXDEV)) => {
                println!("refused ({errno:?}): {what}");
            }
            _ => {
                self.failed += 1;
                println!("ALLOWED{}: {what}", errno.map(|errno| format!(" ({errno:?})")).unwrap_or_default());
            }
        }
    }

    /// Must work.
    fn allowed(&mut self, what: &str, try_it: impl FnOnce() -> io::Result<()>) {
        match try_it() {
            Ok(()) => println!("works: {what}"),
            Err(error) => {
                self.failed += 1;
                println!("FAILED ({error}): {what}");
            }
        }
    }
}

/// One sector.
struct Sector([u8; 512]);

impl IoMemory for Sector {
    fn parts(&mut self, mut each: impl FnMut(Part<'_>)) {
        each(Part::Private(&mut self.0));
    }
}

fn read_by_uring(charge: &Charge, path: &Path) -> io::Result<()> {
    let options = ImageOptions { read_only: true, ..ImageOptions::default() };
    let image = Image::open_by(&charge.line, path, &options).map_err(io::Error::other)?;
    let mut uring = Uring::new()?;
    let disk = uring.attach(&Arc::new(image))?;
    let data = Sector([0; 512]);
    let op = Op { disk, action: Action::Read { offset: 0 }, outcome: Ok(()), data };
    _ = uring.submit(Box::new(op));
    uring.kick()?;
    loop {
        uring.wait(None)?;
        if let Some(op) = uring.reap() {
            op.outcome?;
            return if op.data.0 == *CONTENTS { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
    }
}

fn make_log(logs: &Path) -> io::Result<()> {
    let (new, log) = (logs.join("self-test.new"), logs.join("self-test"));
    File::create(&new)?.set_len(4096)?;
    fs::rename(&new, &log)?;
    fs::remove_file(&log)
}
