//! The console of a guest: commands in, lines out. The guest's first process runs each line "NUMBER COMMAND", the command in base64.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use xen_platform::{DomId, Store as _, StoreClient};

/// Both ways of one console, from now on.
pub(super) struct Console {
    terminal: File,
    log: BufReader<File>,
    /// The beginning of a line that has not ended yet.
    begun: String,
    last: u64,
}

/// A line that came over the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Of the command with that number.
    Answer(u64, String),
    /// Of anybody else.
    Other(String),
}

impl Console {
    /// The console of a running guest, whose output is logged as Xen's console daemon does.
    pub(super) fn open(store: &mut StoreClient, domain: DomId) -> Result<Self> {
        let home = format!("/local/domain/{domain}");
        let mut read =
            |key: &str| -> Result<String> { Ok(String::from_utf8(store.read(&format!("{home}/{key}"))?)?) };
        let (name, terminal) = (read("name")?, read("console/tty")?);
        let log = format!("/var/log/xen/console/guest-{name}.log");
        let open = |path: &str, write: bool| {
            let file = File::options().read(!write).write(write).open(path);
            file.with_context(|| format!("cannot open {path}"))
        };
        let (terminal, mut log) = (open(&terminal, true)?, open(&log, false)?);
        log.seek(SeekFrom::End(0))?;
        Ok(Self { terminal, log: BufReader::new(log), begun: String::new(), last: 0 })
    }

    /// Has a command run beside others; its number goes before each line that it prints, and "over" with its status after them.
    pub(super) fn tell(&mut self, program: &str, words: &[String]) -> Result<u64> {
        // Numbers must not have been used before, by any process.
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
        self.last = now.max(self.last + 1);
        let (number, words) = (self.last, words.join(" "));
        let command = format!(
            "{{ {program} --mark %{number} {words}; echo \"%{number} over $?\"; }} >/dev/hvc0 2>&1 </dev/null &\n"
        );
        self.terminal.write_all(format!("{number} {}\n", base64(command.as_bytes())).as_bytes())?;
        Ok(number)
    }

    /// The next line, if one has come.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        let mut bytes = Vec::new();
        self.log.read_until(b'\n', &mut bytes)?;
        self.begun.push_str(&String::from_utf8_lossy(&bytes));
        if !self.begun.ends_with('\n') {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.begun);
        Ok(Some(Line::parse(line.trim_end())))
    }
}

impl Line {
    fn parse(line: &str) -> Self {
        let answer = line.strip_prefix('%').and_then(|rest| rest.split_once(' '));
        match answer.and_then(|(number, text)| Some((number.parse().ok()?, text))) {
            Some((number, text)) => Line::Answer(number, text.to_owned()),
            None => Line::Other(line.to_owned()),
        }
    }

    /// What the kernel says, without the time at which it does.
    pub(super) fn of_the_kernel(&self) -> Option<&str> {
        let Line::Other(line) = self else { return None };
        let (_, text) = line.strip_prefix('[')?.split_once("] ")?;
        Some(text)
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | u32::from(*three.get(n).unwrap_or(&0)));
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n <= three.len() { digit.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
