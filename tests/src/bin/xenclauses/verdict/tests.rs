//! Lines are read as they were written.

use anyhow::anyhow;

use super::*;

#[test]
fn lines_come_back() {
    for verdict in Verdict::ALL {
        let outcome = Outcome::new("ring.every-slot", Abi::X86_32, verdict, "seen\tthis\n and that");
        assert_eq!(outcome.observation, "seen this and that");
        assert_eq!(outcome.to_string().parse::<Outcome>().unwrap(), outcome);
    }
}

#[test]
fn an_error_is_a_difference_with_all_its_causes() {
    let outcome = Outcome::of("a.b", Abi::Arm, Err(anyhow!("no answer").context("round 2")));
    assert_eq!(outcome.to_string(), "a.b\tarm-abi\tdiffers\tround 2: no answer");
    assert_eq!(Outcome::of("a.b", Abi::Arm, Ok(())).to_string(), "a.b\tarm-abi\tholds\t");
}

#[test]
fn other_lines_are_refused() {
    for line in ["", "a.b\tx86_64-abi\tholds", "a.b\tppc-abi\tholds\t", "a.b\tarm-abi\tfine\t"] {
        assert!(line.parse::<Outcome>().is_err(), "{line:?}");
    }
}
