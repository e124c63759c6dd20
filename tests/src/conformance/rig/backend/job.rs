//! What a frontend under test is told to do, and what came of it.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use blkfront::{Capabilities, Config, QueueStats, SegmentChoice};
use xen_platform::sim;

use super::work::{Work, digest, written};

/// Wishes for a connection, and work to be done on it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Wishes; the layout is the clause's.
    pub config: Config,
    /// What to do, in order.
    pub work: Vec<Work>,
    /// Stay connected when all is done, until [`Backend::release`](super::Backend::release).
    pub hold: bool,
    /// Wait for another backend when this one goes away; else that is a failure. Of the library only.
    pub patient: bool,
    /// Most pieces of work under way at once on each queue.
    pub depth: usize,
    /// Longest sleep without a look at XenStore (of the library; the tool has its own).
    pub nap: Duration,
}

impl Job {
    /// Does `work`, all at once, on one queue of one page with grants for each request, then closes.
    pub fn new(work: impl Into<Vec<Work>>) -> Self {
        let config = Config { persistent: false, timeout: Duration::from_secs(20), ..Config::default() };
        Self {
            config,
            work: work.into(),
            hold: false,
            patient: false,
            depth: 1024,
            nap: Duration::from_millis(5),
        }
    }

    /// Connects and waits for further orders.
    pub fn idle() -> Self {
        Self { hold: true, ..Self::new([]) }
    }

    /// Asks for so many queues.
    #[must_use]
    pub fn queues(mut self, queues: u32) -> Self {
        self.config.queues = queues;
        self
    }

    /// Asks for rings of so many pages.
    #[must_use]
    pub fn ring_pages(mut self, pages: u32) -> Self {
        self.config.ring_pages = pages;
        self
    }

    /// How larger requests are to travel.
    #[must_use]
    pub fn segments(mut self, choice: SegmentChoice) -> Self {
        self.config.segments = choice;
        self
    }

    /// Asks for requests of up to so many segments.
    #[must_use]
    pub fn max_segments(mut self, segments: u32) -> Self {
        self.config.max_segments = segments;
        self
    }

    /// Asks for persistent grants.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.config.persistent = true;
        self
    }

    /// Waits for another backend when this one goes away.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Has so much under way at once.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Waits so long for each step of the backend; the tool counts whole seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
    }

    /// The tool's arguments. Errors: the tool cannot be told to do this. `input` is a file that the bytes to be written are put
    /// into, `output` where those that were read go.
    pub(super) fn arguments(&self, abi: &str, input: &Path, output: &Path) -> Result<Vec<String>> {
        let config = &self.config;
        let segments = match config.segments {
            SegmentChoice::Auto => "auto",
            SegmentChoice::Direct => "direct",
            SegmentChoice::Blocks => "blocks",
            SegmentChoice::Indirect => "indirect",
        };
        let seconds = config.timeout.as_secs().max(1);
        let mut words: Vec<String> = [
            ("--queues", config.queues.to_string()),
            ("--ring-pages", config.ring_pages.to_string()),
            ("--segments", segments.to_owned()),
            ("--max-segments", config.max_segments.to_string()),
            ("--timeout", seconds.to_string()),
            ("--abi", abi.to_owned()),
            ("--poll-us", "0".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        if !config.persistent {
            words.push("--no-persistent".to_owned());
        }
        let path = |path: &Path| path.display().to_string();
        let verb = match self.work.first() {
            None if self.hold => {
                ["nbd", "--socket", &path(&output.with_extension("sock"))].map(String::from).to_vec()
            }
            None => vec!["info".to_owned(), "--json".to_owned()],
            Some(Work::Flush | Work::Barrier(None)) if self.work.len() == 1 => {
                std::fs::write(input, "")?;
                vec!["write".to_owned(), path(input)]
            }
            Some(_) => {
                let (verb, file) = self.transfer(input, output)?;
                let Some(Work::Read(first) | Work::Write(first)) = self.work.first().copied() else {
                    bail!("the tool cannot be told to do {:?}", self.work);
                };
                let length = u64::from(first.bytes) * self.work.len() as u64;
                let piece = first.bytes.next_multiple_of(4096);
                let depth = self.depth.min(self.work.len());
                let at = first.sector * 512;
                format!(
                    "{verb} --offset {at} --length {length} --piece {piece} --depth {depth} {}",
                    path(file)
                )
                .split(' ')
                .map(String::from)
                .collect()
            }
        };
        words.extend(verb);
        Ok(words)
    }

    /// One transfer of the tool in pieces: the verb and its file.
    fn transfer<'a>(&self, input: &'a Path, output: &'a Path) -> Result<(&'static str, &'a Path)> {
        let (mut ranges, mut writes) = (Vec::new(), 0);
        for work in &self.work {
            let (Work::Read(range) | Work::Write(range)) = work else {
                bail!("the tool cannot be told to do {work:?}")
            };
            writes += usize::from(matches!(work, Work::Write(_)));
            ranges.push(*range);
        }
        let first = *ranges.first().context("no work")?;
        let follows = ranges.windows(2).all(|pair| {
            pair[1].sector == pair[0].sector + u64::from(pair[0].bytes / 512)
                && pair[1].bytes == pair[0].bytes
        });
        let whole = ranges.len() == 1 || first.bytes.is_multiple_of(4096);
        let alike = writes == 0 || writes == ranges.len();
        if !follows || !whole || !alike || first.offset != 0 {
            bail!("the tool cannot be told to do {:?}", self.work);
        }
        if writes == 0 {
            return Ok(("read", output));
        }
        let total = first.bytes as usize * ranges.len();
        std::fs::write(input, written(first.sector, total))?;
        Ok(("write", input))
    }
}

/// What came of a [`Job`].
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Why it failed: a step of the life cycle, or the first failed work.
    pub error: Option<String>,
    /// How each piece of work ended, in the order in which they did: its number, and the error if any. Of the library only.
    pub results: Vec<(usize, Result<(), String>)>,
    /// What was read, by number of the work one after the other; the tool's output. Only its [`digest`], as it may have been read
    /// in another machine.
    pub read: String,
    /// The frontend is not ours: its messages are in words of its own.
    pub foreign: bool,
    /// Of the library only.
    pub stats: QueueStats,
    /// Of the library only.
    pub capabilities: Option<Capabilities>,
    /// What keeps the library's process alive in the simulated world. Of the library only.
    pub world: Option<sim::World>,
}

impl Outcome {
    /// Errors unless everything went well.
    pub fn ok(self) -> Result<Self> {
        match &self.error {
            None => Ok(self),
            Some(error) => bail!("the frontend failed: {error}"),
        }
    }

    /// True if it is this that was read.
    pub fn has_read(&self, bytes: &[u8]) -> bool {
        self.read == digest(bytes)
    }

    /// Errors unless it failed, and if it is ours with a message that has `word` in it.
    pub fn fails_with(&self, word: &str) -> Result<()> {
        match &self.error {
            Some(error) if self.tells_of(error, word) => Ok(()),
            Some(error) => bail!("the frontend's error does not tell of {word:?}: {error}"),
            None => bail!("the frontend did not fail; wanted an error about {word:?}"),
        }
    }

    /// Errors unless work `number` failed, and if the frontend is ours with a message that has `word` in it.
    pub fn refused(&self, number: usize, word: &str) -> Result<()> {
        match self.result(number)? {
            Err(error) if self.tells_of(error, word) => Ok(()),
            Err(error) => bail!("work {number} is refused with: {error}"),
            Ok(()) => bail!("work {number} was accepted"),
        }
    }

    fn tells_of(&self, error: &str, word: &str) -> bool {
        self.foreign || error.contains(word)
    }

    /// How work `number` ended.
    pub fn result(&self, number: usize) -> Result<Result<(), &str>> {
        let ended = self.results.iter().find(|(other, _)| *other == number);
        let (_, result) = ended.with_context(|| format!("work {number} never ended"))?;
        Ok(result.as_ref().copied().map_err(String::as_str))
    }
}
