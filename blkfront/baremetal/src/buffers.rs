//! Idle buffers of each queue, in two sizes, so that memory is not scattered over as many sizes as there are I/Os.

use alloc::{vec, vec::Vec};

use blkfront::{Buffer, Queue};
use xen_platform::{FrontWorld, GrantError, PAGE_SIZE};

/// Small buffers hold a request of 11 segments, and these many there are at most for a queue.
const SMALL: usize = 13 * PAGE_SIZE;
const SMALL_BUFFERS: usize = 16;

/// All of them, by queue.
#[derive(Default)]
pub(crate) struct Buffers {
    large: Vec<Vec<Buffer>>,
    small: Vec<Vec<Buffer>>,
}

impl Buffers {
    /// One of `largest` bytes for each queue, and as many small ones as there is memory for, within reason. Errors: no memory
    /// for the large ones.
    pub(crate) fn for_queues<W: FrontWorld>(
        queues: &mut [Queue<W>],
        largest: usize,
    ) -> Result<Self, GrantError> {
        let large = queues.iter_mut().map(|queue| Ok(vec![queue.alloc_buffer(largest)?]));
        let large = large.collect::<Result<_, GrantError>>()?;
        let small = |queue: &mut Queue<W>| {
            core::iter::repeat_with(|| queue.alloc_buffer(SMALL))
                .take(SMALL_BUFFERS)
                .map_while(Result::ok)
                .collect()
        };
        Ok(Self { large, small: queues.iter_mut().map(small).collect() })
    }

    /// An idle buffer of queue `number` that holds `bytes`.
    pub(crate) fn take(&mut self, number: usize, bytes: usize) -> Option<Buffer> {
        let small = self.small.get_mut(number).filter(|_| bytes <= SMALL).and_then(Vec::pop);
        small.or_else(|| self.large.get_mut(number)?.pop())
    }

    pub(crate) fn give(&mut self, number: usize, buffer: Buffer) {
        let size = if buffer.len() <= SMALL { &mut self.small } else { &mut self.large };
        if let Some(idle) = size.get_mut(number) {
            idle.push(buffer);
        }
    }

    /// Gives all of them back to their queues.
    pub(crate) fn free<W: FrontWorld>(&mut self, queues: &mut [Queue<W>]) {
        for size in [&mut self.large, &mut self.small] {
            for (queue, idle) in queues.iter_mut().zip(size) {
                idle.drain(..).for_each(|buffer| queue.free_buffer(buffer));
            }
        }
    }
}
