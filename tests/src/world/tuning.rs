//! What a user may force upon the pair, in the words of the two programs.

use std::path::{Path, PathBuf};

use clap::Args;

/// Settings that are handed to `blkfront` and `blkback`; what is not given is left to them.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Forced on the pair")]
pub struct Tuning {
    /// Pages of each queue's ring
    #[arg(long, value_name = "N")]
    pub ring_pages: Option<u32>,
    /// Queues
    #[arg(long, value_name = "N")]
    pub queues: Option<u32>,
    /// How requests of more than 11 segments are carried: direct, indirect or blocks
    #[arg(long, value_name = "MODE")]
    pub segments: Option<String>,
    /// Lend pages anew for every request
    #[arg(long)]
    pub no_persistent: bool,
    /// How long the frontend looks for answers before it sleeps, in microseconds
    #[arg(long, value_name = "N")]
    pub poll_us: Option<u64>,
    /// Layout of the ring's entries: x86_32, x86_64 or arm
    #[arg(long, value_name = "ABI")]
    pub abi: Option<String>,
    /// How the backend's data reaches the guest's pages: copy, persistent or direct
    #[arg(long, value_name = "STRATEGY")]
    pub strategy: Option<String>,
    /// Note nothing in the backend that a next one could go on from
    #[arg(long)]
    pub no_recovery: bool,
    /// Metrics, and limits that are never reached: for comparisons
    #[arg(skip)]
    pub watched: bool,
    /// Record what each of them sees of the other, in new files in this folder
    #[arg(long, value_name = "FOLDER")]
    pub record: Option<PathBuf>,
}

impl Tuning {
    /// Arguments for `blkfront`, before its subcommand.
    pub fn frontend(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([format!("--{name}"), value]);
            }
        };
        put("ring-pages", self.ring_pages.map(|n| n.to_string()));
        put("queues", self.queues.map(|n| n.to_string()));
        put("segments", self.segments.clone());
        put("poll-us", self.poll_us.map(|n| n.to_string()));
        put("abi", self.abi.clone());
        put("record", self.record.as_deref().map(absolute));
        if self.no_persistent {
            arguments.push("--no-persistent".into());
        }
        arguments
    }

    /// Arguments for `blkback`.
    pub fn backend(&self) -> Vec<String> {
        let strategy = self.strategy.iter().flat_map(|strategy| ["--strategy".to_owned(), strategy.clone()]);
        let record = self.record.iter().flat_map(|folder| ["--record".to_owned(), absolute(folder)]);
        strategy.chain(self.no_recovery.then(|| "--no-recovery".to_owned())).chain(record).collect()
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.into()).display().to_string()
}
