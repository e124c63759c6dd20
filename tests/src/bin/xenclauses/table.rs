//! `table`: docs/INTEROP.md, made of the clauses and of what is on record of them.

mod copes;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use self::copes::COPES;
use crate::{
    backends, frontends,
    verdict::{Outcome, Verdict},
};

/// Arguments of `table`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The folder of the records
    #[arg(default_value = "tests/xen/expected")]
    folder: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    print!("{}", page(&args.folder)?);
    Ok(ExitCode::SUCCESS)
}

/// One end's clauses, and who they were put to: heading and name of the record.
struct Section {
    heading: &'static str,
    peers: &'static [(&'static str, &'static str)],
    /// Names and rules.
    clauses: Vec<(&'static str, &'static str)>,
}

fn sections() -> Vec<Section> {
    let backends = backends::one::clauses().into_iter().map(|clause| (clause.name, clause.rule));
    let frontends = frontends::one::clauses().into_iter().map(|clause| (clause.name, clause.rule));
    vec![
        Section {
            heading: "Backends",
            peers: &[
                ("xen-blkback", "clauses-kernel"),
                ("qdisk", "clauses-qdisk"),
                ("ours", "clauses-blkback"),
            ],
            clauses: backends.collect(),
        },
        Section {
            heading: "Frontends",
            peers: &[("xen-blkfront", "clauses-frontend")],
            clauses: frontends.collect(),
        },
    ]
}

/// The whole page.
fn page(folder: &Path) -> Result<String> {
    let mut page = include_str!("table/head.md").to_owned();
    for section in sections() {
        section.write(folder, &mut page)?;
    }
    Ok(page)
}

impl Section {
    fn write(mut self, folder: &Path, page: &mut String) -> Result<()> {
        self.clauses.sort_unstable();
        let records = self.peers.iter().map(|(_, record)| read(&folder.join(format!("{record}.tsv"))));
        let records = records.collect::<Result<Vec<_>>>()?;
        let headings: Vec<&str> = self.peers.iter().map(|(heading, _)| *heading).collect();
        writeln!(page, "\n## {}\n", self.heading)?;
        writeln!(page, "| clause | {} | rule |", headings.join(" | "))?;
        writeln!(page, "|---|{}", "---|".repeat(headings.len() + 1))?;
        let mut notes = Notes::default();
        for (name, rule) in &self.clauses {
            let cells: Vec<String> = records.iter().map(|record| cell(record, name, &mut notes)).collect();
            writeln!(page, "| `{name}` | {} | {rule} |", cells.join(" | "))?;
        }
        notes.write(page)?;
        writeln!(page, "\n### What the differences mean to our end\n")?;
        for (why, clauses) in COPES {
            let clauses = clauses.iter().filter(|name| self.clauses.iter().any(|(known, _)| known == *name));
            let clauses: Vec<String> = clauses.map(|name| format!("`{name}`")).collect();
            if !clauses.is_empty() {
                writeln!(page, "- {why} ({})", clauses.join(", "))?;
            }
        }
        Ok(())
    }
}

/// A record's outcomes by clause.
type Record = BTreeMap<String, Vec<Outcome>>;

fn read(path: &Path) -> Result<Record> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut record = Record::new();
    for line in text.lines() {
        let outcome: Outcome = line.parse().with_context(|| path.display().to_string())?;
        record.entry(outcome.clause.clone()).or_default().push(outcome);
    }
    Ok(record)
}

/// What is on record of one clause: a word if all ABIs agree, else one for each.
fn cell(record: &Record, clause: &str, notes: &mut Notes) -> String {
    let outcomes = record.get(clause).map_or(&[][..], Vec::as_slice);
    let mut words: Vec<String> = outcomes.iter().map(|outcome| notes.word(outcome)).collect();
    match &words[..] {
        [] => return "–".to_owned(),
        [first, rest @ ..] if rest.iter().all(|word| word == first) => return first.clone(),
        _ => {}
    }
    for (word, outcome) in words.iter_mut().zip(outcomes) {
        *word = format!("{}: {word}", outcome.abi.as_protocol());
    }
    words.join("; ")
}

/// Characters of the longest observation that is told whole.
const NOTE: usize = 240;

/// Observations, numbered in the order in which the table needs them; the same one has the same number.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn word(&mut self, outcome: &Outcome) -> String {
        let Outcome { verdict, observation, .. } = outcome;
        let word = match verdict {
            Verdict::Differs => "**differs**",
            other => other.as_str(),
        };
        if observation.is_empty() {
            return word.to_owned();
        }
        let mut note: String = observation.chars().take(NOTE).collect();
        if note.len() < observation.len() {
            note.push('…');
        }
        let known = self.0.iter().position(|known| *known == note);
        let number = known.unwrap_or_else(|| {
            self.0.push(note);
            self.0.len() - 1
        });
        format!("{word} ({})", number + 1)
    }

    fn write(&self, page: &mut String) -> Result<()> {
        writeln!(page)?;
        for (number, note) in self.0.iter().enumerate() {
            writeln!(page, "{}. {note}", number + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
