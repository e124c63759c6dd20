//! Clauses as tests: one for each clause and ABI, each in a fresh world.

use anyhow::Result;
use blkback::config::Strategy;
use blkif_proto::Abi;
use libtest_mimic::{Arguments, Failed, Trial};
use xen_platform::sim;

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
    for clause in backend::data::<sim::World>() {
        for &strategy in strategies(processes) {
            for &abi in clause.abis {
                let name = format!("backend::{}::{}::{strategy:?}", clause.name, abi.as_protocol());
                let (rule, check) = (clause.rule, clause.check);
                trials.push(trial(name, rule, move |rig| check(&mut rig.guest()?), processes, strategy, abi));
            }
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

fn strategies(processes: Processes) -> &'static [Strategy] {
    match processes {
        Processes::One => &[Strategy::Copy, Strategy::Persistent, Strategy::Direct],
        Processes::Two => &[Strategy::Direct],
    }
}

/// One clause about backends in one world.
fn trial(
    name: String,
    rule: &'static str,
    check: impl FnOnce(&mut Rig) -> Result<()> + Send + 'static,
    processes: Processes,
    strategy: Strategy,
    abi: Abi,
) -> Trial {
    Trial::test(name, move || {
        let breach = |error| Failed::from(format!("{rule}\n{error:?}"));
        let mut rig = Rig::new(processes, strategy, abi).map_err(breach)?;
        check(&mut rig).map_err(|error| breach(error.context(rig.world.backend_words())))?;
        rig.finish().map_err(breach)
    })
}
