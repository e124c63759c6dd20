//! `info`: what the disk is and what was negotiated, a fact a line.

use core::fmt;

use crate::{
    Failure, Guest,
    command::Order,
    disk::{self, Disk},
};

pub(crate) fn run<W: Guest>(
    world: &W,
    path: &str,
    order: &Order,
    out: &mut impl fmt::Write,
) -> Result<(), Failure> {
    disk::with(world, path, order.config.clone(), out, |disk, out| {
        // Whoever reads `out` sees what is missing.
        let _ = tell(disk, out);
        Ok(())
    })
}

fn tell<W: Guest>(disk: &Disk<W>, out: &mut impl fmt::Write) -> fmt::Result {
    let (ends, can, negotiated) = (disk.device.info(), disk.device.capabilities(), disk.device.negotiated());
    writeln!(out, "frontend {}", ends.frontend)?;
    writeln!(out, "backend {}, domain {}", ends.backend, ends.domain)?;
    writeln!(out, "size {} bytes in sectors of {}", can.bytes(), can.sector_size)?;
    writeln!(out, "access {}", if can.read_only { "read-only" } else { "read-write" })?;
    writeln!(out, "flush {}, barrier {}, discard {}", can.flush, can.barrier, can.discard.is_some())?;
    for cut in &negotiated.reductions {
        writeln!(out, "reduced {cut}")?;
    }
    Ok(())
}
