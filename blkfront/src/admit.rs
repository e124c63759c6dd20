//! May this I/O go to this disk? Asked once, before anything is lent or written; the backend asks again, and need not be
//! trusted to.

use blkif_proto::{Limits, SECTOR_SIZE, SegmentMode, keys, span_fits};

use crate::{
    Io, Operation, RejectReason,
    split::{PAGE, Split},
};

/// Checks `io` against the connection and a disk of `capacity` sectors, and cuts it.
#[inline]
pub(crate) fn admit(io: &Io, limits: &Limits, capacity: u64) -> Result<Split, RejectReason> {
    let offered = &limits.operations;
    let (has_data, is_offered) = match io.op {
        Operation::Read | Operation::Write => (true, true),
        Operation::WriteBarrier => (io.buffer.is_some(), offered.barrier),
        Operation::Flush => (false, offered.flush),
        Operation::Discard { secure, .. } => {
            (false, offered.discard.is_some_and(|how| how.secure || !secure))
        }
    };
    if !is_offered {
        return Err(RejectReason::NotSupported);
    }
    if limits.read_only && !matches!(io.op, Operation::Read | Operation::Flush) {
        return Err(RejectReason::ReadOnly);
    }
    if !has_data {
        return without_data(io, capacity);
    }
    let Some(buffer) = io.buffer.as_ref().filter(|_| io.len > 0) else {
        return Err(RejectReason::WrongShape);
    };
    let end = u64::from(io.offset) + u64::from(io.len);
    if end > buffer.len() as u64 {
        return Err(RejectReason::OutsideBuffer);
    }
    let within = u64::from(limits.sector_size).max(SECTOR_SIZE as u64) - 1;
    let first_byte = io.sector.wrapping_mul(SECTOR_SIZE as u64);
    if (first_byte | u64::from(io.offset) | u64::from(io.len)) & within != 0 {
        #[expect(clippy::cast_possible_truncation, reason = "the sector size, a u32")]
        return Err(RejectReason::Misaligned((within + 1) as u32));
    }
    in_range(io.sector, u64::from(io.len) / SECTOR_SIZE as u64, capacity)?;
    Ok(Split::new(io.offset, io.len, max_pages(limits, io.op)))
}

/// Pages of the largest request for `op`.
#[inline]
pub(crate) fn max_pages(limits: &Limits, op: Operation) -> u32 {
    let segments = match (limits.mode, op) {
        // There is no indirect barrier.
        (SegmentMode::Indirect, Operation::WriteBarrier) => keys::ORIGINAL_SEGMENTS,
        _ => limits.max_segments,
    };
    let by_size = limits.max_request_bytes / PAGE;
    u32::from(segments).min(by_size).max(1)
}

fn without_data(io: &Io, capacity: u64) -> Result<Split, RejectReason> {
    if io.buffer.is_some() || io.len != 0 {
        return Err(RejectReason::WrongShape);
    }
    if let Operation::Discard { sectors, .. } = io.op {
        in_range(io.sector, sectors, capacity)?;
    }
    Ok(Split::new(0, 0, 1))
}

#[inline]
fn in_range(sector: u64, count: u64, capacity: u64) -> Result<(), RejectReason> {
    if span_fits(sector, count, capacity) {
        return Ok(());
    }
    Err(RejectReason::OutOfRange { sector, count, capacity })
}
