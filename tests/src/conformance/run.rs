//! Clauses as tests: one for each clause and ABI, each in a fresh world.

use anyhow::Result;
use blkback::config::Strategy;
use libtest_mimic::{Arguments, Failed, Trial};
use xen_platform::sim;

use super::{
    Clause, backend, frontend,
    rig::{self, Guest, Processes, Rig},
};

/// Runs the clauses that the command line chooses, with the other end in a thread or in a process of its own, and exits with the
/// result as `cargo test` expects it.
pub fn main(processes: Processes) -> ! {
    let mut arguments = Arguments::from_args();
    // A world has threads and child processes of its own that poll; more worlds at once than this only make each other late.
    arguments.test_threads.get_or_insert(2);
    if arguments.list {
        eprintln!("{}", summary());
    }
    libtest_mimic::run(&arguments, trials(processes)).exit()
}

fn trials(processes: Processes) -> Vec<Trial> {
    let mut trials = Vec::new();
    // The data plane differs by strategy, the control plane does not.
    let (every, one) = (&[Strategy::Copy, Strategy::Persistent, Strategy::Direct], &[Strategy::Direct]);
    trials.extend(of_backends(processes, every, backend::data::<sim::World>(), with_guest));
    trials.extend(of_backends(processes, every, backend::images(), |rig, check| check(rig)));
    trials.extend(of_backends(processes, one, backend::control::<sim::World>(), with_guest));
    trials.extend(of_backends(processes, one, backend::devices(), |rig, check| check(rig)));
    if processes == Processes::Two {
        trials.extend(of_backends(processes, one, backend::processes(), |rig, check| check(rig)));
    }
    for clause in frontend::clauses(processes) {
        for &abi in clause.abis {
            let name = format!("frontend::{}::{}", clause.name, abi.as_protocol());
            trials.push(Trial::test(name, move || {
                let breach = |error| breach(clause.rule, &error);
                let mut backend = rig::backend::Backend::start(processes, abi).map_err(breach)?;
                (clause.check)(&mut backend).map_err(breach)
            }));
        }
    }
    trials.sort_by(|a, b| a.name().cmp(b.name()));
    trials
}

/// How many clauses there are, wherever they run.
fn summary() -> String {
    let of_guests = backend::data::<sim::World>().len() + backend::control::<sim::World>().len();
    let of_rigs = backend::images().len() + backend::devices().len() + backend::processes().len();
    let (backends, frontends) = (of_guests + of_rigs, frontend::clauses::<sim::World>(Processes::One).len());
    format!("{} clauses: {backends} about backends, {frontends} about frontends", backends + frontends)
}

/// Clauses about backends, each in a world of its own for every ABI and strategy.
fn of_backends<P: 'static>(
    processes: Processes,
    strategies: &[Strategy],
    clauses: Vec<Clause<P>>,
    put: fn(&mut Rig, Check<P>) -> Result<()>,
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for Clause { name, rule, abis, check } in clauses {
        for (&abi, &strategy) in abis.iter().flat_map(|abi| strategies.iter().map(move |each| (abi, each))) {
            let name = format!("backend::{name}::{}::{strategy:?}", abi.as_protocol());
            trials.push(Trial::test(name, move || {
                let breach = |error| breach(rule, &error);
                let mut rig = Rig::new(processes, strategy, abi).map_err(breach)?;
                put(&mut rig, check).map_err(|error| breach(error.context(rig.last_words())))?;
                rig.finish().map_err(breach)
            }));
        }
    }
    trials
}

/// The rule, and what went wrong down to its cause; no backtrace, which would only show this runner.
fn breach(rule: &str, error: &anyhow::Error) -> Failed {
    let causes: Vec<String> = error.chain().map(|cause| format!("  {cause}")).collect();
    Failed::from(format!("{rule}\n{}", causes.join("\n")))
}

type Check<P> = fn(&mut P) -> Result<()>;

fn with_guest(rig: &mut Rig, check: Check<Guest<sim::World>>) -> Result<()> {
    check(&mut rig.guest()?)
}
