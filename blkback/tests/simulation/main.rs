//! Deterministic simulation: one guest's ring, a worker and a disk with a will of its own, in one thread over the fake world, where
//! every step is chosen by a seed. The worker is killed and followed by another at any turn; answers are checked one by one.
//!
//! A seed that fails fails again, with as many steps as it takes and no more:
//!
//! ```sh
//! BLKIF_SEED=4711 cargo test -p blkback --test simulation      # one seed, told step by step
//! BLKIF_SEEDS=1000000 cargo test -p blkback --test simulation --release
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and cut numbers to size"
)]

mod disk;
mod guest;
mod truth;
mod world;

use std::{env, panic, thread};

use world::World;

/// Steps of one run; a seed that fails is run again with fewer.
const STEPS: u32 = 160;
/// Seeds of a run in which nobody says otherwise.
const SEEDS: u64 = 100_000;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What is wrong with a seed's run of so many steps.
fn fault(seed: u64, steps: u32) -> Option<String> {
    let outcome = panic::catch_unwind(|| World::new(seed, false).run(steps));
    outcome.err().map(|error| match error.downcast::<String>() {
        Ok(text) => *text,
        Err(error) => error.downcast::<&str>().map_or("it panicked".to_owned(), |text| (*text).to_owned()),
    })
}

/// The least number of steps with which it fails, and how.
fn shrink(seed: u64) -> (u32, String) {
    let failing = (1..=STEPS).find_map(|steps| Some((steps, fault(seed, steps)?)));
    failing.expect("it failed a moment ago")
}

#[test]
fn seeds() {
    if let Some(seed) = number("BLKIF_SEED") {
        return World::new(seed, true).run(number("BLKIF_STEPS").map_or(STEPS, |steps| steps as u32));
    }
    let seeds = number("BLKIF_SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    // A panic is told of once it is known what it needs.
    panic::set_hook(Box::new(|_| ()));
    let failing: Vec<u64> = thread::scope(|scope| {
        let share = |first| {
            move || (first..seeds).step_by(threads as usize).find(|seed| fault(*seed, STEPS).is_some())
        };
        let shares: Vec<_> = (0..threads).map(|first| scope.spawn(share(first))).collect();
        shares.into_iter().filter_map(|share| share.join().unwrap()).collect()
    });
    let told: Vec<String> = failing
        .into_iter()
        .map(|seed| {
            let (steps, text) = shrink(seed);
            format!("BLKIF_SEED={seed} BLKIF_STEPS={steps}: {text}")
        })
        .collect();
    _ = panic::take_hook();
    assert!(told.is_empty(), "{}", told.join("\n"));
}
