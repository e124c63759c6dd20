//! Bytes that tell where on the disk they belong, and by which pass they were written.

use blkfront::{Buffer, SECTOR_SIZE};

use crate::{Failure, extent::Extent};

/// Bytes of a sector.
pub(crate) const SECTOR: usize = SECTOR_SIZE as usize;
/// What lies in a buffer around the data.
const AROUND: u8 = 0xA5;

/// Fills a whole buffer, so that nothing of an earlier use is left.
pub(crate) fn clear(buffer: &Buffer) {
    for at in (0..buffer.len()).step_by(SECTOR) {
        buffer.write(at, &[AROUND; SECTOR]);
    }
}

/// Puts the bytes that a pass writes to an extent where they belong.
pub(crate) fn fill(buffer: &Buffer, extent: &Extent, pass: u64) {
    for index in 0..extent.sectors {
        buffer.write(extent.offset + index * SECTOR, &bytes(pass, extent.sector + index as u64));
    }
}

/// Compares all bytes of a buffer: those of the extent's sectors, each with what its last pass wrote, if that is known, and those
/// around them.
pub(crate) fn check(
    buffer: &Buffer,
    extent: &Extent,
    pass: impl Fn(u64) -> Option<u64>,
) -> Result<(), Failure> {
    let data = extent.offset..extent.end();
    for at in (0..buffer.len()).step_by(SECTOR) {
        let sector = extent.sector + (at.saturating_sub(extent.offset) / SECTOR) as u64;
        let wanted = match data.contains(&at).then(|| pass(sector)) {
            None => [AROUND; SECTOR],
            Some(Some(pass)) => bytes(pass, sector),
            Some(None) => continue,
        };
        let mut found = [0; SECTOR];
        buffer.read(at, &mut found);
        if let Some(byte) = (0..SECTOR).find(|byte| found.get(*byte) != wanted.get(*byte)) {
            let of = |bytes: &[u8]| bytes.get(byte).copied().unwrap_or_default();
            return Err(Failure::Differs { sector, byte, wanted: of(&wanted), found: of(&found) });
        }
    }
    Ok(())
}

fn bytes(pass: u64, sector: u64) -> [u8; SECTOR] {
    let mut state = mix(pass) ^ mix(!sector);
    let mut bytes = [0; SECTOR];
    for word in bytes.chunks_exact_mut(8) {
        state = mix(state);
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014), after one step.
fn mix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}
