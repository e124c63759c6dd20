//! The tables name clauses that there are.

use xen_platform::sim;

use super::*;
use crate::conformance::{frontend, rig::Processes};

#[test]
fn every_name_is_a_clause_or_an_area() {
    let names: Vec<&str> =
        frontend::clauses::<sim::World>(Processes::One).iter().map(|clause| clause.name).collect();
    for (name, _) in CLAUSES {
        assert!(names.contains(name), "{name}");
    }
    for (area, _) in AREAS {
        assert!(names.iter().any(|name| name.starts_with(&format!("{area}."))), "{area}");
    }
}

#[test]
fn the_rest_is_for_linux_in_its_own_layout() {
    assert_eq!(beyond_linux("ring.every-slot", Abi::NATIVE), None);
    assert_eq!(beyond_linux("ring.every-slot", Abi::Arm), Some(LAYOUT));
    assert_eq!(beyond_linux("recovery.fresh-ring", Abi::NATIVE), Some(DOES_NOT_WAIT));
}
