//! Who runs where, when there are fewer processors than those who would each have one.

use std::{
    fs,
    process::{self, Command},
    thread,
};

use anyhow::{Context as _, Result, ensure};

/// Guests, the daemon's thread and the hypervisor at the same time.
const ENOUGH: usize = 4;

/// True when a machine has two or three of them: the [`daemon`]'s thread gets one, and all [`others`] share another.
pub fn are_few() -> bool {
    thread::available_parallelism().is_ok_and(|processors| (2..ENOUGH).contains(&processors.get()))
}

/// Puts this process, and all that it starts from now on, on the first.
pub fn others() -> Result<()> {
    run("taskset", &["--all-tasks", "--cpu-list", "--pid", "0", &process::id().to_string()])
}

/// Puts the threads that serve queues, of the daemon with this process ID, on the second.
pub fn daemon(pid: u32) -> Result<()> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the daemon's threads")?;
    let mut moved = 0;
    for task in tasks {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.starts_with("worker") {
            run("taskset", &["--cpu-list", "--pid", "1", &task.file_name().to_string_lossy()])?;
            moved += 1;
        }
    }
    ensure!(moved > 0, "the daemon has no thread that serves queues");
    Ok(())
}

/// Has the calling thread run only when nobody else on its processor wants to.
pub fn stand_back() -> Result<()> {
    run("chrt", &["--idle", "--pid", "0", &nix::unistd::gettid().to_string()])
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
