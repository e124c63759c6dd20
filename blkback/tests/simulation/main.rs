//! Deterministic simulation in one thread over the fake world, where every step is chosen by a seed.
//!
//! Twice: `backend` has one ring, written by hand, and looks at every answer; `pair` has the whole pair, and everything that can
//! happen to either end. The worker is killed and followed by another at any turn, and the disk has a will of its own.
//!
//! A seed that fails fails again, with as many steps as it takes and no more:
//!
//! ```sh
//! BLKIF_SEED=4711 cargo test -p blkback --test simulation pair -- --nocapture      # one seed, told step by step
//! BLKIF_SEEDS=1000000 cargo test -p blkback --test simulation --release
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and cut numbers to size"
)]

mod chance;
mod disk;
mod guest;
mod limits;
mod pair;
mod truth;
mod world;

use std::{env, panic, sync::Once, thread};

use pair::Pair;
use world::World;

/// Steps of one run; a seed that fails is run again with fewer.
const STEPS: u32 = 160;
/// Seeds of a run in which nobody says otherwise.
const SEEDS: u64 = 100_000;

/// One seed's run of so many steps, told or not.
type Run = fn(seed: u64, told: bool, steps: u32);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What is wrong with a seed's run of so many steps.
fn fault(run: Run, seed: u64, steps: u32) -> Option<String> {
    let outcome = panic::catch_unwind(|| run(seed, false, steps));
    outcome.err().map(|error| match error.downcast::<String>() {
        Ok(text) => *text,
        Err(error) => error.downcast::<&str>().map_or("it panicked".to_owned(), |text| (*text).to_owned()),
    })
}

/// The least number of steps with which it fails, and how.
fn shrink(run: Run, seed: u64) -> (u32, String) {
    let failing = (1..=STEPS).find_map(|steps| Some((steps, fault(run, seed, steps)?)));
    failing.expect("it failed a moment ago")
}

/// A panic of a run, which is on a thread without a name, is told of once it is known what it needs.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name().is_some() {
                tell(info);
            }
        }));
    });
}

fn simulate(run: Run) {
    if let Some(seed) = number("BLKIF_SEED") {
        return run(seed, true, number("BLKIF_STEPS").map_or(STEPS, |steps| steps as u32));
    }
    hush();
    let seeds = number("BLKIF_SEEDS").unwrap_or(SEEDS);
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    let failing: Vec<String> = thread::scope(|scope| {
        let share = |first| {
            move || {
                let seed = (first..seeds)
                    .step_by(threads as usize)
                    .find(|seed| fault(run, *seed, STEPS).is_some())?;
                let (steps, text) = shrink(run, seed);
                Some(format!("BLKIF_SEED={seed} BLKIF_STEPS={steps}: {text}"))
            }
        };
        let shares: Vec<_> = (0..threads).map(|first| scope.spawn(share(first))).collect();
        shares.into_iter().filter_map(|share| share.join().unwrap()).collect()
    });
    assert!(failing.is_empty(), "{}", failing.join("\n"));
}

#[test]
fn backend() {
    simulate(|seed, told, steps| World::new(seed, told).run(steps));
}

#[test]
fn pair() {
    simulate(|seed, told, steps| Pair::new(seed, told).run(steps));
}
