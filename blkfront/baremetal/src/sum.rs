//! `sum`: the SHA-256 of the whole disk, read in large pieces, several at a time.

use alloc::vec::Vec;
use core::fmt;

use blkfront::{Buffer, Completion, Operation};
use sha2::{Digest as _, Sha256};
use xen_platform::PAGE_SIZE;

use crate::{
    Failure, Guest,
    command::Order,
    disk::{self, Disk},
    extent::Extent,
    pattern::SECTOR,
};

/// Sectors of a piece: 512 KiB.
const PIECE: usize = 1024;
/// Pieces under way, of all queues together.
const WINDOW: usize = 8;

pub(crate) fn run<W: Guest>(
    world: &W,
    path: &str,
    order: &Order,
    out: &mut impl fmt::Write,
) -> Result<(), Failure> {
    disk::with(world, path, order.config.clone(), out, |disk, out| {
        let mut window = Window::new(disk)?;
        let digest = window.digest(disk, out);
        window.free(disk);
        // Whoever reads `out` sees what is missing.
        let _ = writeln!(out, "sha256 {}", Hex(digest?));
        Ok(())
    })
}

/// A digest as `sha256sum` writes it.
struct Hex([u8; 32]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The pieces under way and those that were read. Piece `n` goes through queue `n` and into buffer `n`, both counted round and
/// round; a buffer that is not here is under way.
struct Window {
    buffers: Vec<Option<Buffer>>,
    queues: usize,
    sectors: u64,
}

impl Window {
    /// As many buffers for each queue. Errors: no memory for them.
    fn new<W: Guest>(disk: &mut Disk<W>) -> Result<Self, Failure> {
        let (queues, sectors) = (disk.queues.len(), disk.device.capabilities().sectors);
        let mut buffers = Vec::new();
        for _ in 0..WINDOW.div_ceil(queues) {
            for queue in &mut disk.queues {
                buffers.push(Some(queue.alloc_buffer(PIECE * SECTOR)?));
            }
        }
        Ok(Self { buffers, queues, sectors })
    }

    fn digest<W: Guest>(
        &mut self,
        disk: &mut Disk<W>,
        out: &mut impl fmt::Write,
    ) -> Result<[u8; 32], Failure> {
        let mut sha = Sha256::new();
        let pieces = self.sectors.div_ceil(PIECE as u64);
        let mut asked = 0;
        for piece in 0..pieces {
            while asked < pieces.min(piece + self.buffers.len() as u64) {
                self.ask(disk, asked)?;
                asked += 1;
            }
            let number = round(piece, self.queues);
            while self.buffer(piece).is_none() {
                disk.wait(number, out)?;
                self.reap(disk, number)?;
            }
            let mut bytes = [0; PAGE_SIZE];
            for at in (0..self.piece(piece).end()).step_by(PAGE_SIZE) {
                let left = bytes.len().min(self.piece(piece).end() - at);
                let Some(bytes) = bytes.get_mut(..left) else { break };
                if let Some(buffer) = self.buffer(piece) {
                    buffer.read(at, bytes);
                }
                sha.update(bytes);
            }
        }
        Ok(sha.finalize().into())
    }

    fn ask<W: Guest>(&mut self, disk: &mut Disk<W>, piece: u64) -> Result<(), Failure> {
        let extent = self.piece(piece);
        let Some(queue) = disk.queues.get_mut(round(piece, self.queues)) else { return Err(Failure::Gone) };
        let Some(buffer) = self.buffer(piece).take() else { return Err(Failure::Lost { cookie: piece }) };
        let io = extent.io(Operation::Read, buffer).cookie(piece);
        queue.submit(io).map_err(|rejected| Failure::rejected(&rejected))?;
        Ok(())
    }

    /// Takes what a queue has read.
    fn reap<W: Guest>(&mut self, disk: &mut Disk<W>, number: usize) -> Result<(), Failure> {
        let Some(queue) = disk.queues.get_mut(number) else { return Err(Failure::Gone) };
        let mut failed = Ok(());
        queue.finish(&mut |Completion { io, result, .. }| match (result, io.buffer) {
            (Err(error), _) => failed = Err(Failure::Io { sector: io.sector, error }),
            (Ok(()), None) => failed = Err(Failure::Lost { cookie: io.cookie }),
            (Ok(()), buffer) => *self.buffer(io.cookie) = buffer,
        })?;
        failed
    }

    fn buffer(&mut self, piece: u64) -> &mut Option<Buffer> {
        let count = self.buffers.len();
        &mut self.buffers[round(piece, count)]
    }

    fn piece(&self, piece: u64) -> Extent {
        let sector = piece * PIECE as u64;
        let sectors =
            usize::try_from(self.sectors.saturating_sub(sector)).map_or(PIECE, |left| left.min(PIECE));
        Extent { sector, sectors, offset: 0 }
    }

    fn free<W: Guest>(self, disk: &mut Disk<W>) {
        for (buffer, piece) in self.buffers.into_iter().zip(0..) {
            if let (Some(buffer), Some(queue)) = (buffer, disk.queues.get_mut(round(piece, self.queues))) {
                queue.free_buffer(buffer);
            }
        }
    }
}

/// A number, counted round and round.
fn round(number: u64, count: usize) -> usize {
    usize::try_from(number % count.max(1) as u64).unwrap_or(0)
}
