//! The conformance clauses with the real daemon and the real tool as processes of their own.

fn main() {
    tests::conformance::run::main(tests::conformance::rig::Processes::Two)
}
