//! The clauses themselves: names, and what of PROTOCOL.md they speak of.

use std::collections::BTreeSet;

use super::*;

/// Name and rule of every clause, of one side after the other.
fn all() -> [Vec<(&'static str, &'static str)>; 2] {
    let backends = [backend::data(), backend::control()].into_iter().flatten();
    let backends =
        backends.map(|clause: Clause<rig::Guest<xen_platform::sim::World>>| (clause.name, clause.rule));
    let more = [backend::images(), backend::devices(), backend::processes()].into_iter().flatten();
    let backends = backends.chain(more.map(|clause| (clause.name, clause.rule))).collect();
    let frontends = frontend::clauses::<xen_platform::sim::World>(rig::Processes::One);
    [backends, frontends.into_iter().map(|clause| (clause.name, clause.rule)).collect()]
}

/// The sections in the parentheses of a rule: `0.15`, `8.2`, `XSA-155`.
fn sections(rule: &'static str) -> impl Iterator<Item = &'static str> {
    let parentheses = rule.split('(').skip(1).filter_map(|rest| rest.split(')').next());
    parentheses.flat_map(|list| list.split([',', ' '])).filter(|word| !word.is_empty())
}

#[test]
fn names_are_unique_and_say_their_area() {
    for side in all() {
        let mut seen = BTreeSet::new();
        for (name, _) in side {
            let (area, rest) = name.split_once('.').unwrap_or_else(|| panic!("{name} has no area"));
            let plain =
                |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            let plain = plain(area) && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            assert!(plain, "{name} is not of letters, digits and hyphens");
            assert!(seen.insert(name), "{name} is there twice");
        }
    }
}

#[test]
fn every_rule_is_a_sentence_with_its_place() {
    for (name, rule) in all().into_iter().flatten() {
        assert!(rule.ends_with(").") || rule.ends_with('.'), "{name}: {rule}");
        assert!(sections(rule).next().is_some(), "{name} does not say where its rule is from: {rule}");
    }
}

/// Every rule of section 0, which are the ones easiest to get wrong, has a clause that may fail for it.
#[test]
fn section_0_is_covered() {
    let sections: BTreeSet<&str> = all().into_iter().flatten().flat_map(|(_, rule)| sections(rule)).collect();
    let protocol = include_str!("../../../docs/PROTOCOL.md");
    let section = protocol.split("\n## ").find(|section| section.starts_with("0. ")).unwrap();
    let rules = section.lines().skip(1).filter_map(|line| line.split_once(". ")?.0.parse::<u32>().ok());
    let rules: Vec<u32> = rules.collect();
    assert_eq!(rules, (1..=31).collect::<Vec<_>>(), "the rules of section 0");
    let missing: Vec<u32> =
        rules.into_iter().filter(|n| !sections.contains(format!("0.{n}").as_str())).collect();
    assert!(missing.is_empty(), "no clause for rules {missing:?} of section 0");
}

/// Backends have something to keep in every one of them.
#[test]
fn section_0_is_covered_for_backends() {
    let [backends, _] = all();
    let sections: BTreeSet<&str> = backends.into_iter().flat_map(|(_, rule)| sections(rule)).collect();
    let missing: Vec<u32> = (1..=31).filter(|n| !sections.contains(format!("0.{n}").as_str())).collect();
    assert!(missing.is_empty(), "no clause for rules {missing:?} of section 0");
}
