//! The tables speak of clauses that exist.

use super::{super::*, AREAS, CLAUSES};
use crate::conformance::rig::Guest;

fn names() -> Vec<&'static str> {
    let clauses: Vec<Clause<Guest<xen_platform::sim::World>>> = data().into_iter().chain(control()).collect();
    clauses.into_iter().map(|clause| clause.name).collect()
}

#[test]
fn every_entry_has_its_clause() {
    for (name, _) in CLAUSES {
        assert!(names().contains(name), "{name}");
    }
    for (area, _) in AREAS {
        assert!(
            names().iter().any(|name| name.split_once('.').is_some_and(|(first, _)| first == *area)),
            "{area}"
        );
    }
}

#[test]
fn area_and_name_are_added() {
    let of = |name| needs(name).map(|(key, least)| format!("{key} {least}")).collect::<Vec<_>>();
    assert_eq!(of("ring.every-slot"), [""; 0]);
    assert_eq!(of("barrier.empty"), ["feature-barrier 1"]);
    let both = ["feature-max-indirect-segments 12", "feature-max-indirect-segments 20"];
    assert_eq!(of("indirect.range"), both);
}
