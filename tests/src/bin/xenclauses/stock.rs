//! In the guest: its own block driver, by order of the scripted backend in dom0 (`tests::conformance::rig::backend::stock`).
//!
//! New disks are left alone by the kernel (`drivers_autoprobe` of the bus is 0) until one is given to the driver here. Each line that
//! is printed begins with the mark of the order, so that it is told from others on the console.

mod work;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tests::{conformance::rig::backend::Work, world::wait_until};

const BUS: &str = "/sys/bus/xen";
const MODULE: &str = "/sys/module/xen_blkfront/parameters";
/// How long anything in this guest may take that needs nobody else.
const PATIENCE: Duration = Duration::from_secs(20);

/// Arguments of `stock`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// What goes before each line
    #[arg(long)]
    mark: String,
    #[command(subcommand)]
    order: Order,
}

#[derive(clap::Subcommand, Debug)]
enum Order {
    /// Gives a disk to the driver, the module of which has these parameters
    Start { number: u32, queues: u32, ring_page_order: u32, segments: u32, persistent: u32 },
    /// Waits until the kernel has looked at a disk
    Ready { disk: String },
    /// Does work on a disk, so many pieces at once
    Work { disk: String, depth: usize, work: Vec<Work> },
    /// Takes a disk from the driver
    Stop { number: u32 },
    /// Waits until the kernel knows of a disk no more
    Gone { number: u32 },
}

/// Carries an order out; why it failed is printed too.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let say = |line: &str| {
        // In one piece, as others print too. Nobody is left to tell if it fails.
        _ = std::io::stdout().lock().write_all(format!("{} {line}\n", args.mark).as_bytes());
    };
    let done = match &args.order {
        Order::Start { number, queues, ring_page_order, segments, persistent } => {
            start(*number, [*queues, *ring_page_order, *segments], *persistent)
        }
        Order::Ready { disk } => ready(disk),
        Order::Work { disk, depth, work } => work::run(disk, *depth, work, &say),
        Order::Stop { number } => bind(*number, "unbind"),
        Order::Gone { number } => {
            wait_until("the disk to go", PATIENCE, || Ok((!device(*number).exists()).then_some(())))
        }
    };
    Ok(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed {error:#}"));
            ExitCode::FAILURE
        }
    })
}

fn device(number: u32) -> PathBuf {
    Path::new(BUS).join(format!("devices/vbd-{number}"))
}

fn start(number: u32, [queues, order, segments]: [u32; 3], persistent: u32) -> Result<()> {
    // What the kernel has to say of a disk goes to the console too.
    write("/proc/sys/kernel/printk", "7")?;
    wait_until("the disk", PATIENCE, || Ok(device(number).exists().then_some(())))?;
    // It has no more than processors.
    let processors = u32::try_from(thread::available_parallelism()?.get())?;
    configure([queues.min(processors), order, segments])?;
    write(&format!("{MODULE}/feature_persistent"), &persistent.to_string())?;
    bind(number, "bind")
}

/// Loads the module anew if it has other parameters.
fn configure(parameters: [u32; 3]) -> Result<()> {
    let names = ["max_queues", "max_ring_page_order", "max_indirect_segments"];
    let read = |name: &str| fs::read_to_string(format!("{MODULE}/{name}")).unwrap_or_default();
    if names.iter().zip(parameters).all(|(name, value)| read(name).trim() == value.to_string()) {
        return Ok(());
    }
    // A disk on which somebody waits for ever keeps the module, and whoever unloads it waits as well.
    let held = fs::read_dir(format!("{BUS}/drivers/vbd"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let held: Vec<String> = held.filter(|name| name.starts_with("vbd-")).collect();
    ensure!(held.is_empty(), "the module has {held:?} and cannot be loaded anew");
    let words = names.iter().zip(parameters).map(|(name, value)| format!("{name}={value}"));
    command(&["rmmod".into(), "xen-blkfront".into()])?;
    command(&["modprobe".into(), "xen-blkfront".into()].into_iter().chain(words).collect::<Vec<_>>())
}

fn bind(number: u32, verb: &str) -> Result<()> {
    write(&format!("{BUS}/drivers/vbd/{verb}"), &format!("vbd-{number}"))
}

fn ready(disk: &str) -> Result<()> {
    // To open a disk waits for who looks for partitions; until that begins there is nothing to be opened.
    wait_until("the disk", PATIENCE, || Ok(fs::File::open(format!("/dev/{disk}")).ok()))?;
    thread::sleep(Duration::from_millis(20));
    let queue = format!("/sys/block/{disk}/queue");
    write(&format!("{queue}/scheduler"), "none")?;
    let most = fs::read_to_string(format!("{queue}/max_hw_sectors_kb"))?;
    write(&format!("{queue}/max_sectors_kb"), most.trim())
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("{value} into {path}"))
}

fn command(words: &[String]) -> Result<()> {
    let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.with_context(|| words.join(" "))?;
    if !output.status.success() {
        bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
