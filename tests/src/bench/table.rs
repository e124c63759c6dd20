//! Samples gathered, medians taken, the table printed.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::job::{Job, Sample};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// io_uring on the file itself.
    Raw,
    /// `qemu-storage-daemon`, the client sleeping for completions.
    Qemu,
    /// `qemu-storage-daemon`, the client spinning for completions.
    QemuPolled,
    /// Our pair, large requests as the two ends choose.
    Pair,
    /// Our pair, 11 segments and no more.
    PairDirect,
    /// Our pair, large requests as indirect segments.
    PairIndirect,
    /// Our pair, large requests as segment blocks.
    PairBlocks,
    /// Our pair, nothing noted that a next daemon could go on from.
    PairUnlogged,
    /// Our pair, with metrics, and limits that it never reaches.
    PairWatched,
}

impl Contender {
    /// As the tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw io_uring",
            Self::Qemu => "qemu vhost-user",
            Self::QemuPolled => "qemu, client polls",
            Self::Pair => "blkif pair",
            Self::PairDirect => "blkif pair, direct",
            Self::PairIndirect => "blkif pair, indirect",
            Self::PairBlocks => "blkif pair, blocks",
            Self::PairUnlogged => "blkif pair, no log",
            Self::PairWatched => "blkif pair, watched",
        }
    }
}

/// What lies behind the reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// A page-cached image file.
    File,
    /// Nothing: what remains is the protocol's own cost.
    Null,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Row {
    /// What lies behind.
    pub storage: Storage,
    /// The job.
    pub job: Job,
    /// Who.
    pub who: Contender,
}

/// All samples of a run, in the order in which rows first appeared.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Entry>,
}

type Entry = (Row, Vec<Sample>);

impl Table {
    /// Adds a sample.
    pub fn add(&mut self, row: Row, sample: Sample) {
        match self.rows.iter_mut().find(|(known, _)| *known == row) {
            Some((_, samples)) => samples.push(sample),
            None => self.rows.push((row, vec![sample])),
        }
    }

    /// Every row with its samples.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &[Sample])> {
        self.rows.iter().map(|(row, samples)| (row, samples.as_slice()))
    }

    /// The median of a row, figure by figure; `None` when it was not measured.
    pub fn median(&self, row: Row) -> Option<Sample> {
        self.rows.iter().find(|(known, _)| *known == row).map(|(_, samples)| median(samples))
    }

    /// The table as text, one block per storage and job.
    pub fn text(&self) -> String {
        let mut blocks: BTreeMap<(Storage, usize), Vec<&Entry>> = BTreeMap::new();
        let mut jobs: Vec<Job> = Vec::new();
        for entry in &self.rows {
            let at = jobs.iter().position(|job| *job == entry.0.job).unwrap_or_else(|| {
                jobs.push(entry.0.job);
                jobs.len() - 1
            });
            blocks.entry((entry.0.storage, at)).or_default().push(entry);
        }
        let mut text = format!(
            "{:<36}{:>12}{:>11}{:>11}{:>11}{:>11}\n",
            "", "IOPS", "MB/s", "p50 us", "p99 us", "CPU us/IO"
        );
        for ((storage, _), rows) in blocks {
            let Some((first, _)) = rows.first() else { continue };
            let on = match storage {
                Storage::File => "page-cached file",
                Storage::Null => "null storage",
            };
            let _ = writeln!(text, "{} ({on})", first.job.name());
            for (row, samples) in rows {
                let m = median(samples);
                let _ = writeln!(
                    text,
                    "  {:<34}{:>12.0}{:>11.0}{:>11.1}{:>11.1}{:>11.2}",
                    row.who.name(),
                    m.iops,
                    m.bytes_per_second / 1e6,
                    m.p50_us,
                    m.p99_us,
                    m.cpu_us
                );
            }
        }
        text
    }
}

/// The median of each figure by itself.
pub fn median(samples: &[Sample]) -> Sample {
    let figure = |get: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(get).collect();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        match (values.len() % 2, values.get(half)) {
            (_, None) => f64::NAN,
            (1, Some(middle)) => *middle,
            (_, Some(upper)) => f64::midpoint(values[half - 1], *upper),
        }
    };
    Sample {
        iops: figure(|s| s.iops),
        bytes_per_second: figure(|s| s.bytes_per_second),
        p50_us: figure(|s| s.p50_us),
        p99_us: figure(|s| s.p99_us),
        cpu_us: figure(|s| s.cpu_us),
    }
}

#[cfg(test)]
mod tests;
