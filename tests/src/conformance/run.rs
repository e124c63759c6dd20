//! Clauses as tests: one for each clause and ABI, each in a fresh world.

use libtest_mimic::{Arguments, Failed, Trial};

use super::{
    backend, frontend,
    rig::{self, Processes, Rig},
};

/// Runs the clauses that the command line chooses, with the other end in a thread or in a process of its own, and exits with the
/// result as `cargo test` expects it.
pub fn main(processes: Processes) -> ! {
    let mut arguments = Arguments::from_args();
    // A world has threads and child processes of its own that poll; more worlds at once than this only make each other late.
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, trials(processes)).exit()
}

fn trials(processes: Processes) -> Vec<Trial> {
    let mut trials = Vec::new();
    for clause in backend::clauses() {
        for &abi in clause.abis {
            let name = format!("backend::{}::{}", clause.name, abi.as_protocol());
            trials.push(Trial::test(name, move || {
                let breach = |error| Failed::from(format!("{}\n{error:?}", clause.rule));
                let mut rig = Rig::start(processes, abi, &[]).map_err(breach)?;
                let mut guest = rig.guest().map_err(breach)?;
                (clause.check)(&mut guest).map_err(|error| breach(error.context(rig.world.backend_words())))
            }));
        }
    }
    for clause in frontend::clauses(processes) {
        for &abi in clause.abis {
            let name = format!("frontend::{}::{}", clause.name, abi.as_protocol());
            trials.push(Trial::test(name, move || {
                let breach = |error| Failed::from(format!("{}\n{error:?}", clause.rule));
                let mut backend = rig::backend::Backend::start(processes, abi).map_err(breach)?;
                (clause.check)(&mut backend).map_err(breach)
            }));
        }
    }
    trials
}
