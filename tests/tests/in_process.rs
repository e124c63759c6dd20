//! The conformance clauses with the other end in a thread of the same process.

fn main() {
    tests::conformance::run::main(tests::conformance::rig::Processes::One)
}
