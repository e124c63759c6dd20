//! From us to the disk: data and zeroes written with several I/Os in flight.
//!
//! Each piece of the disk goes through the stages it needs, independently of the others:
//!
//! ```text
//! data, whole sectors          Write ─▶ done
//! data, ends inside a sector   Fill (read what is around it) ─▶ Write ─▶ done
//! zeroes                       (Discard) ─▶ Check (read) ─▶ done if it reads as zeroes, else Write ─▶ done
//! ```

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use blkfront::{Buffer, Completion, Io, IoError, SECTOR_SIZE};

use crate::{connect::World, exit::Usage, pipe::Pipe};

/// What comes next on the way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This many bytes of data, now in the buffer.
    Data(usize),
    /// This many zeroes; they begin and end at multiples of 4096 bytes, or at the end of everything.
    Zeroes(u64),
    /// No more.
    End,
}

/// How zeroes get to the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Zeroes {
    /// Discard each range of zeroes first, where the disk can.
    pub(crate) discard: bool,
    /// The disk reads as zeroes everywhere already: there is nothing to do.
    pub(crate) already: bool,
}

/// What was done, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Data written.
    pub(crate) data: u64,
    /// Zeroes that had to be written.
    pub(crate) zeroed: u64,
    /// Zeroes that were there already, or after a discard.
    pub(crate) kept: u64,
}

/// A push that did not get to its end.
#[derive(Debug)]
pub(crate) struct Unfinished {
    /// Everything before this byte of the disk was written.
    pub(crate) at: u64,
    /// Why it ended.
    pub(crate) error: anyhow::Error,
}

/// Writes what `source` gives, from byte `at` of the disk on. `source` fills the buffer it gets as far as it can; less than
/// the whole buffer is the last of the data, or the last before zeroes. `progress` hears up to which byte everything is
/// written. What was written is not durable before a [flush](Pipe::flush).
pub(crate) fn push<W: World>(
    pipe: &mut Pipe<'_, W>,
    at: u64,
    zeroes: Zeroes,
    mut source: impl FnMut(&mut [u8]) -> anyhow::Result<Next>,
    mut progress: impl FnMut(u64),
) -> Result<Tally, Unfinished> {
    let mut push = Push::new(pipe, at, zeroes);
    let result = push.run(pipe, &mut source, &mut progress);
    let Err(error) = result else { return Ok(push.tally) };
    pipe.settle(|completion| push.note(completion));
    push.retire();
    Err(Unfinished { at: push.window.front().map_or(push.next, |piece| piece.from), error })
}

struct Push {
    /// Unit of the disk in bytes.
    unit: u64,
    disk_bytes: u64,
    zeroes: Zeroes,
    /// The next byte to be written, and zeroes that are due from there on.
    next: u64,
    zeroes_due: u64,
    ended: bool,
    /// Pieces under way, in order; the cookie of each I/O is its number.
    window: VecDeque<Piece>,
    retired: u64,
    tally: Tally,
    scratch: Vec<u8>,
    blank: Vec<u8>,
}

struct Piece {
    /// The bytes of the disk that the piece is about.
    from: u64,
    to: u64,
    stage: Stage,
}

enum Stage {
    /// Reading the sectors around data that does not fill them.
    Fill(Vec<u8>),
    /// Discarding; the buffer waits for the next stage.
    Discard(Buffer),
    /// Reading, to see whether there are zeroes.
    Check,
    /// Writing.
    Write,
    Done,
}

impl Push {
    fn new<W: World>(pipe: &Pipe<'_, W>, at: u64, zeroes: Zeroes) -> Self {
        let disk = pipe.capabilities();
        Self {
            unit: u64::from(disk.alignment.max(1)),
            disk_bytes: disk.bytes(),
            zeroes: Zeroes { discard: zeroes.discard && disk.discard.is_some(), ..zeroes },
            next: at,
            zeroes_due: 0,
            ended: false,
            window: VecDeque::new(),
            retired: 0,
            tally: Tally::default(),
            scratch: vec![0; pipe.piece() as usize],
            blank: vec![0; pipe.piece() as usize],
        }
    }

    fn run<W: World>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        source: &mut impl FnMut(&mut [u8]) -> anyhow::Result<Next>,
        progress: &mut impl FnMut(u64),
    ) -> anyhow::Result<()> {
        loop {
            self.begin(pipe, source)?;
            let Some(completion) = pipe.next()? else {
                progress(self.next);
                return Ok(());
            };
            self.advance(pipe, completion)?;
            if let Some(written) = self.retire() {
                progress(written);
            }
        }
    }

    /// Begins new pieces while there are buffers.
    fn begin<W: World>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        source: &mut impl FnMut(&mut [u8]) -> anyhow::Result<Next>,
    ) -> anyhow::Result<()> {
        while !self.ended {
            let Some(buffer) = pipe.take() else { return Ok(()) };
            let room = self.scratch.len() - offset(self.next, self.unit);
            if self.zeroes_due > 0 {
                let count = self.zeroes_due.min(room as u64);
                self.zeroes_due -= count;
                self.begin_zeroes(pipe, buffer, count)?;
                continue;
            }
            match source(&mut self.scratch[..room]) {
                Ok(Next::Data(count)) if count > 0 => self.begin_data(pipe, buffer, count.min(room))?,
                Ok(Next::Zeroes(count)) => {
                    pipe.put(buffer);
                    self.fits(count)?;
                    match self.zeroes.already {
                        true => {
                            self.tally.kept += count;
                            self.next += count;
                        }
                        false => self.zeroes_due = count,
                    }
                }
                Ok(_) => {
                    pipe.put(buffer);
                    self.ended = true;
                }
                Err(error) => {
                    pipe.put(buffer);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn begin_data<W: World>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        buffer: Buffer,
        count: usize,
    ) -> anyhow::Result<()> {
        if let Err(error) = self.fits(count as u64) {
            pipe.put(buffer);
            return Err(error);
        }
        let (from, to) = (self.next, self.next + count as u64);
        self.tally.data += count as u64;
        let data = &self.scratch[..count];
        if from % self.unit == 0 && to % self.unit == 0 {
            buffer.write(0, data);
            return self.start(pipe, Piece { from, to, stage: Stage::Write }, Some(buffer));
        }
        let stage = Stage::Fill(data.to_vec());
        self.start(pipe, Piece { from, to, stage }, Some(buffer))
    }

    fn begin_zeroes<W: World>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        buffer: Buffer,
        count: u64,
    ) -> anyhow::Result<()> {
        let (from, to) = (self.next, self.next + count);
        if from % self.unit != 0 || to % self.unit != 0 {
            let piece = Piece { from, to, stage: Stage::Check };
            let stage = Stage::Fill(self.blank[..piece.len()].to_vec());
            self.tally.zeroed += count;
            return self.start(pipe, Piece { stage, ..piece }, Some(buffer));
        }
        match self.zeroes.discard {
            true => self.start(pipe, Piece { from, to, stage: Stage::Discard(buffer) }, None),
            false => self.start(pipe, Piece { from, to, stage: Stage::Check }, Some(buffer)),
        }
    }

    fn start<W: World>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        piece: Piece,
        buffer: Option<Buffer>,
    ) -> anyhow::Result<()> {
        let number = self.retired + self.window.len() as u64;
        self.next = piece.to;
        let io = piece.io(self.unit, buffer).cookie(number);
        self.window.push_back(piece);
        pipe.submit(io)
    }

    /// Takes a piece from the stage that has just ended to its next one.
    fn advance<W: World>(&mut self, pipe: &mut Pipe<'_, W>, completion: Completion) -> anyhow::Result<()> {
        let Completion { io, result, .. } = completion;
        let Some(index) = self.index(io.cookie) else { bail!("a completion of nothing that was asked for") };
        let Some(piece) = self.window.get_mut(index) else {
            bail!("a completion of nothing that was asked for")
        };
        let stage = std::mem::replace(&mut piece.stage, Stage::Check);
        let what = if matches!(stage, Stage::Write) { "writing" } else { "reading" };
        let buffer = match (stage, io.buffer) {
            (Stage::Discard(buffer), _) => {
                // A discard is advice: whether it worked shows when the range is read.
                self.zeroes.discard &= !matches!(result, Err(IoError::NotSupported));
                return pipe.submit(piece.io(self.unit, Some(buffer)).cookie(io.cookie));
            }
            (stage, buffer) => {
                let context = || format!("{what} {} bytes at byte {}", piece.to - piece.from, piece.from);
                if let Err(error) = result {
                    buffer.into_iter().for_each(|buffer| pipe.put(buffer));
                    return Err(error).with_context(context);
                }
                let buffer = buffer.with_context(context)?;
                match stage {
                    Stage::Fill(data) => buffer.write(offset(piece.from, self.unit), &data),
                    Stage::Check => {
                        let there = &mut self.scratch[..piece.len()];
                        buffer.read(0, there);
                        if is_zero(there) {
                            self.tally.kept += piece.to - piece.from;
                            piece.stage = Stage::Done;
                            pipe.put(buffer);
                            return Ok(());
                        }
                        self.tally.zeroed += piece.to - piece.from;
                        buffer.write(0, &self.blank)
                    }
                    _ => {
                        piece.stage = Stage::Done;
                        pipe.put(buffer);
                        return Ok(());
                    }
                };
                buffer
            }
        };
        piece.stage = Stage::Write;
        pipe.submit(piece.io(self.unit, Some(buffer)).cookie(io.cookie))
    }

    /// Remembers that a piece of a failed push was written after all.
    fn note(&mut self, completion: &Completion) {
        let piece = self.index(completion.io.cookie).and_then(|index| self.window.get_mut(index));
        if let Some(piece) =
            piece.filter(|piece| matches!(piece.stage, Stage::Write) && completion.result.is_ok())
        {
            piece.stage = Stage::Done;
        }
    }

    /// Drops the done pieces at the front; answers up to which byte everything is written now.
    fn retire(&mut self) -> Option<u64> {
        let mut written = None;
        while let Some(Piece { to, stage: Stage::Done, .. }) = self.window.front() {
            written = Some(*to);
            self.retired += 1;
            self.window.pop_front();
        }
        written
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.retired)?).ok()
    }

    fn fits(&self, count: u64) -> anyhow::Result<()> {
        match self.next.checked_add(count) {
            Some(end) if end <= self.disk_bytes => Ok(()),
            _ => {
                Err(Usage(format!("the data does not fit: the disk ends at byte {}", self.disk_bytes)).into())
            }
        }
    }
}

impl Piece {
    /// Its length in bytes; no piece is larger than a buffer.
    fn len(&self) -> usize {
        usize::try_from(self.to - self.from).unwrap_or(usize::MAX)
    }

    /// The I/O of the piece's stage, over whole units of the disk.
    fn io(&self, unit: u64, buffer: Option<Buffer>) -> Io {
        let first = self.from - self.from % unit;
        let bytes = self.to.next_multiple_of(unit) - first;
        let sector = first / u64::from(SECTOR_SIZE);
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        match (&self.stage, buffer) {
            (Stage::Write, Some(buffer)) => Io::write(sector, buffer).part(0, length),
            (_, Some(buffer)) => Io::read(sector, buffer).part(0, length),
            (_, None) => Io::discard(sector, bytes / u64::from(SECTOR_SIZE)),
        }
    }
}

/// Where in its unit of the disk a byte lies.
fn offset(at: u64, unit: u64) -> usize {
    usize::try_from(at % unit).unwrap_or_default()
}

/// True if every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<64>();
    tail.iter().all(|byte| *byte == 0)
        && words.iter().all(|word| word.iter().fold(0, |sum, byte| sum | byte) == 0)
}
