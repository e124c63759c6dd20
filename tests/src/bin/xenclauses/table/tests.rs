//! The page is what the records say, and says all of it.

use std::collections::BTreeSet;

use super::*;

const RECORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/xen/expected");

#[test]
fn the_page_is_the_records() {
    let page = page(Path::new(RECORDS)).unwrap();
    assert!(
        page == include_str!("../../../../../docs/INTEROP.md"),
        "docs/INTEROP.md is to be generated anew"
    );
}

/// What our end makes of each difference is told, and of nothing that is none.
#[test]
fn every_difference_is_answered_for() {
    let mut differ = BTreeSet::new();
    for Section { peers, .. } in sections() {
        for (_, record) in peers {
            let record = read(&Path::new(RECORDS).join(format!("{record}.tsv"))).unwrap();
            let outcomes = record.into_values().flatten();
            differ.extend(outcomes.filter(|it| it.verdict == Verdict::Differs).map(|it| it.clause));
        }
    }
    let told: Vec<&str> = COPES.iter().flat_map(|(_, clauses)| clauses.iter().copied()).collect();
    let told_once: BTreeSet<String> = told.iter().map(|clause| (*clause).to_owned()).collect();
    assert_eq!(told_once.len(), told.len(), "a clause is told of twice");
    assert_eq!(differ, told_once);
}

#[test]
fn records_are_of_clauses_that_there_are() {
    for Section { peers, clauses, .. } in sections() {
        let clauses: BTreeSet<&str> = clauses.iter().map(|(name, _)| *name).collect();
        for (_, record) in peers {
            let outcomes = read(&Path::new(RECORDS).join(format!("{record}.tsv"))).unwrap();
            let recorded: BTreeSet<&str> = outcomes.keys().map(String::as_str).collect();
            let unknown: Vec<_> = recorded.difference(&clauses).collect();
            assert!(unknown.is_empty(), "{record}: {unknown:?}");
        }
    }
}

#[test]
fn notes_are_numbered_once() {
    use blkif_proto::Abi;
    let mut notes = Notes::default();
    let outcome = |abi, verdict, seen| Outcome::new("a.b", abi, verdict, seen);
    let record = Record::from([
        (
            "same".to_owned(),
            vec![
                outcome(Abi::X86_32, Verdict::Differs, "silence"),
                outcome(Abi::X86_64, Verdict::Differs, "silence"),
            ],
        ),
        (
            "mixed".to_owned(),
            vec![
                outcome(Abi::X86_32, Verdict::Holds, ""),
                outcome(Abi::X86_64, Verdict::NotApplicable, "no key"),
            ],
        ),
    ]);
    assert_eq!(cell(&record, "same", &mut notes), "**differs** (1)");
    assert_eq!(cell(&record, "mixed", &mut notes), "x86_32-abi: holds; x86_64-abi: n/a (2)");
    assert_eq!(cell(&record, "none", &mut notes), "–");
    assert_eq!(notes.0, ["silence", "no key"]);
}
