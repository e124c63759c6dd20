//! From the disk to us: a range read with several I/Os in flight and delivered in order.

use std::collections::VecDeque;

use anyhow::Context as _;
use blkfront::{Buffer, Io, SECTOR_SIZE};

use crate::{connect::World, pipe::Pipe};

/// Reads `length` bytes from byte `at` on, and gives them to `take` in order, in pieces, each with its offset on the disk.
/// The range may begin and end inside sectors. Errors: those of the disk and of `take`; what came before was delivered.
pub(crate) fn pull<W: World>(
    pipe: &mut Pipe<'_, W>,
    at: u64,
    length: u64,
    take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let result = Pull::new(pipe, at, length).run(pipe, take);
    if result.is_err() {
        pipe.settle(|_| ());
    }
    result
}

struct Pull {
    /// The wanted range, in bytes.
    at: u64,
    end: u64,
    /// The next byte to ask for; always at the start of a sector.
    next: u64,
    /// Whole sectors around the range.
    aligned_end: u64,
    /// Pieces asked for and not delivered, in order; the cookie of each I/O is its number.
    window: VecDeque<Piece>,
    delivered: u64,
    scratch: Vec<u8>,
}

struct Piece {
    at: u64,
    length: u32,
    data: Option<Buffer>,
}

impl Pull {
    fn new<W: World>(pipe: &Pipe<'_, W>, at: u64, length: u64) -> Self {
        let unit = u64::from(pipe.capabilities().alignment.max(1));
        let end = at.saturating_add(length);
        Self {
            at,
            end,
            next: at - at % unit,
            aligned_end: end.checked_next_multiple_of(unit).unwrap_or(end),
            window: VecDeque::new(),
            delivered: 0,
            scratch: vec![0; pipe.piece() as usize],
        }
    }

    fn run<W: World>(
        mut self,
        pipe: &mut Pipe<'_, W>,
        mut take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            self.ask(pipe)?;
            let Some(completion) = pipe.next()? else { return Ok(()) };
            let Some(piece) = self.piece(completion.io.cookie) else { continue };
            completion
                .result
                .with_context(|| format!("reading {} bytes at byte {}", piece.length, piece.at))?;
            piece.data = completion.io.buffer;
            self.deliver(pipe, &mut take)?;
        }
    }

    /// Keeps as many reads under way as there are buffers.
    fn ask<W: World>(&mut self, pipe: &mut Pipe<'_, W>) -> anyhow::Result<()> {
        while self.next < self.aligned_end {
            let Some(buffer) = pipe.take() else { return Ok(()) };
            let left = u32::try_from(self.aligned_end - self.next).unwrap_or(u32::MAX);
            let length = pipe.piece().min(left);
            let number = self.delivered + self.window.len() as u64;
            pipe.submit(Io::read(self.next / u64::from(SECTOR_SIZE), buffer).part(0, length).cookie(number))?;
            self.window.push_back(Piece { at: self.next, length, data: None });
            self.next += u64::from(length);
        }
        Ok(())
    }

    fn piece(&mut self, number: u64) -> Option<&mut Piece> {
        let index = usize::try_from(number.checked_sub(self.delivered)?).ok()?;
        self.window.get_mut(index)
    }

    fn deliver<W: World>(
        &mut self,
        pipe: &mut Pipe<'_, W>,
        take: &mut impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while let Some(buffer) = self.window.front_mut().and_then(|piece| piece.data.take()) {
            let Some(piece) = self.window.pop_front() else { break };
            self.delivered += 1;
            let data = &mut self.scratch[..piece.length as usize];
            buffer.read(0, data);
            pipe.put(buffer);
            let within =
                |bytes: u64| usize::try_from(bytes).map_or(data.len(), |bytes| bytes.min(data.len()));
            let from = within(self.at.saturating_sub(piece.at));
            let to = within(self.end - piece.at);
            take(piece.at + from as u64, &data[from..to])?;
        }
        Ok(())
    }
}
