//! `up`: a world to play with.

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::Result;
use tests::world::{take_interrupt, tuning::Tuning};

use crate::guests::{Guests, new_world, target};

/// Arguments of `up`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Raw images to serve, each as the disk of a guest of its own; also null:SIZE
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    tuning: Tuning,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let targets = args.images.iter().map(|image| target(image)).collect::<Result<Vec<_>>>()?;
    let mut guests = Guests::start(new_world()?, &targets, &args.tuning, None)?;
    println!("world     {}", guests.world().name());
    println!("xenstore  XENSTORED_PATH={} xenstore-ls -f", guests.world().xenstore().display());
    for guest in guests.iter() {
        println!("guest {:<3} {}", guest.vbd.guest, guest.target);
        println!("          {}", guest.uri());
        println!("          try: nbdinfo '{}'", guest.uri());
    }
    println!("SIGINT (^C) ends it.");
    while !take_interrupt() {
        guests.check_alive()?;
        thread::sleep(Duration::from_millis(100));
    }
    guests.stop()?;
    Ok(ExitCode::SUCCESS)
}
