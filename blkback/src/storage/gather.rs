//! An operation's memory as the list of parts that the kernel takes.

use nix::libc;

use super::{IoMemory, Part};

/// The kernel takes at most this many parts in one operation (`UIO_MAXIOV`); longer ones go in several steps.
const MAX_PARTS: usize = 1024;

/// Lists the memory from byte `skip` on, neighbours merged, at most [`MAX_PARTS`] parts. Returns the whole length in bytes.
pub(super) fn gather(memory: &mut impl IoMemory, skip: u64, parts: &mut Vec<libc::iovec>) -> u64 {
    parts.clear();
    let mut total = 0;
    memory.parts(|part| {
        let (base, len) = match part {
            Part::Shared(mem) => (mem.as_ptr(), mem.len()),
            Part::Private(bytes) => (bytes.as_mut_ptr(), bytes.len()),
        };
        let before = usize::try_from(skip.saturating_sub(total)).unwrap_or(usize::MAX).min(len);
        total += len as u64;
        let (base, len) = (base.wrapping_add(before), len - before);
        let full = parts.len() == MAX_PARTS;
        match parts.last_mut() {
            _ if len == 0 => {}
            // What does not fit comes in the next step, and nothing may overtake it by growing the last part.
            _ if full => {}
            Some(last) if last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == base => {
                last.iov_len += len
            }
            _ => parts.push(libc::iovec { iov_base: base.cast(), iov_len: len }),
        }
    });
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of one buffer, given by start and length.
    struct Blocks {
        bytes: Vec<u8>,
        blocks: Vec<(usize, usize)>,
    }

    impl IoMemory for Blocks {
        fn parts(&mut self, mut each: impl FnMut(Part<'_>)) {
            for (start, len) in &self.blocks {
                each(Part::Private(&mut self.bytes[*start..start + len]));
            }
        }
    }

    /// Starts and lengths of what is gathered from byte `skip` on, and the whole length.
    fn gathered(blocks: &[(usize, usize)], skip: u64) -> (Vec<(usize, usize)>, u64) {
        let mut memory = Blocks { bytes: vec![0; 4 << 20], blocks: blocks.to_vec() };
        let base = memory.bytes.as_ptr().addr();
        let mut parts = Vec::new();
        let total = gather(&mut memory, skip, &mut parts);
        (parts.iter().map(|part| (part.iov_base.addr() - base, part.iov_len)).collect(), total)
    }

    #[test]
    fn neighbours_are_one_part() {
        assert_eq!(gathered(&[(0, 4096), (4096, 512), (8192, 512)], 0), (vec![(0, 4608), (8192, 512)], 5120));
        assert_eq!(gathered(&[(4096, 512), (0, 512)], 0), (vec![(4096, 512), (0, 512)], 1024));
        assert_eq!(gathered(&[], 0), (vec![], 0));
    }

    #[test]
    fn what_is_done_is_left_out() {
        let blocks = [(0, 1000), (2000, 1000), (4000, 1000)];
        assert_eq!(gathered(&blocks, 500).0, [(500, 500), (2000, 1000), (4000, 1000)]);
        assert_eq!(gathered(&blocks, 1000).0, [(2000, 1000), (4000, 1000)]);
        assert_eq!(gathered(&blocks, 2999), (vec![(4999, 1)], 3000));
        assert_eq!(gathered(&blocks, 3000), (vec![], 3000));
    }

    #[test]
    fn what_does_not_fit_waits_and_is_not_overtaken() {
        // Apart up to the limit; then one that would touch the last part.
        let mut blocks: Vec<_> = (0..MAX_PARTS).map(|n| (n * 1024, 512)).collect();
        blocks.push(((MAX_PARTS - 1) * 1024 + 512, 512));
        let (parts, total) = gathered(&blocks, 0);
        assert_eq!((parts.len(), total), (MAX_PARTS, (MAX_PARTS as u64 + 1) * 512));
        assert_eq!(parts.iter().map(|(_, len)| len).sum::<usize>(), MAX_PARTS * 512);
        let rest = gathered(&blocks, MAX_PARTS as u64 * 512).0;
        assert_eq!(rest, [((MAX_PARTS - 1) * 1024 + 512, 512)]);
    }
}
