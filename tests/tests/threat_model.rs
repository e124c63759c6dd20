//! Every claim of docs/THREAT-MODEL.md and docs/ADVISORIES.md names tests, and there are such tests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a test can be called in the document.
struct Known {
    clauses: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Known {
    /// From the sources: a clause has a `name: "area.rule"`, a test is a function after `#[test]`.
    fn gather() -> Self {
        let mut known = Self { clauses: BTreeSet::new(), functions: BTreeSet::new() };
        for package in ["blkif-proto", "ringbuf", "xen-platform", "blkfront", "blkback", "tests"] {
            known.of_folder(&root().join(package));
        }
        known
    }

    fn of_folder(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.of_folder(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.of_source(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn of_source(&mut self, source: &str) {
        let mut test = false;
        for line in source.lines().map(str::trim) {
            let quoted = line.strip_prefix("name: \"").and_then(|rest| rest.strip_suffix("\","));
            self.clauses.extend(quoted.filter(|name| name.contains('.')).map(str::to_owned));
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test]") {
                test = true;
            } else if let Some(rest) = line.trim_start_matches("async ").strip_prefix("fn ").filter(|_| test)
            {
                self.functions.extend(rest.split('(').next().map(str::to_owned));
                test = false;
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        match name.strip_prefix("xen/") {
            Some(scenario) => root().join(format!("tests/xen/scenarios/{scenario}.sh")).exists(),
            None if name.contains('.') => self.clauses.contains(name),
            None => self.functions.contains(name),
        }
    }
}

/// The words between backticks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names in the last column of every table that has tests there, with the claim; and those that the text names.
fn claims(document: &str) -> Vec<(&str, Vec<&str>)> {
    let mut claims = Vec::new();
    let mut tests = false;
    for line in document.lines() {
        let Some(cells) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
            tests &= line.starts_with("|---");
            continue;
        };
        let (claim, last) = (cells.split(" | ").next().unwrap(), cells.rsplit(" | ").next().unwrap());
        if last == "test" {
            tests = true;
        } else if tests {
            claims.push((claim, words(last).collect()));
        }
    }
    claims
}

#[test]
fn every_claim_has_a_test() {
    check("THREAT-MODEL.md", 40);
}

#[test]
fn every_advisory_has_an_attacker() {
    check("ADVISORIES.md", 20);
}

/// Looks for the tests of a document with more than so many claims.
fn check(name: &str, least: usize) {
    let document = fs::read_to_string(root().join("docs").join(name)).unwrap();
    let (known, claims) = (Known::gather(), claims(&document));
    assert!(claims.len() > least, "{} claims", claims.len());
    let mut wrong = Vec::new();
    for (claim, tests) in &claims {
        if tests.is_empty() {
            wrong.push(format!("no test: {claim}"));
        }
        wrong
            .extend(tests.iter().filter(|name| !known.has(name)).map(|name| format!("no such test: {name}")));
    }
    // In the text a name with an underline is a test's, if it is no constant.
    let named = words(&document).filter(|word| word.matches('_').count() > 2 && word.to_lowercase() == *word);
    wrong.extend(named.filter(|name| !known.has(name)).map(|name| format!("no such test: {name}")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_name_that_is_none_is_noticed() {
    let known = Known::gather();
    for name in ["hostile.nothing", "xen/nothing", "no_such_test", "gather", "hostile.random-requests.rs"] {
        assert!(!known.has(name), "{name}");
    }
    for name in ["hostile.random-requests", "xen/killed", "a_name_that_is_none_is_noticed"] {
        assert!(known.has(name), "{name}");
    }
    let table =
        "| it cannot | because | test |\n|---|---|---|\n| a | b | `c.d`, `e` |\n| f | g | – |\n\n| h | i |\n";
    assert_eq!(claims(table), [("a", vec!["c.d", "e"]), ("f", vec![])]);
}
