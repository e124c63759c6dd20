//! `bench`: how fast the disk is. All queues are driven in turn; the report is JSON on one line, as `blkfront bench --json` on
//! Linux has it.

use alloc::vec::Vec;
use core::fmt;

use blkfront::{Device, DeviceEvent};
use blkfront_bench::{Limits, Load, Report, measure};
use xen_platform::Clock as _;

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
        let report = report(disk, order)?;
        // Numbers and short words: nothing in it that JSON could not express.
        let _ = writeln!(out, "{}", serde_json::to_string(&report).unwrap_or_default());
        Ok(())
    })
}

fn report<W: Guest>(disk: &mut Disk<W>, order: &Order) -> Result<Report, Failure> {
    let Disk { device, queues, clock, .. } = disk;
    let (job, count) = (&order.job, queues.len() as u64);
    let blocks = job.blocks(device.capabilities(), count)?;
    let queues = queues.iter_mut().zip(0..);
    let loads = queues.map(|(queue, index)| Load::new(queue, job, blocks, index, count));
    let mut loads = loads.collect::<Result<Vec<_>, _>>()?;
    let depth = loads.iter().map(Load::depth).min().unwrap_or_default();
    let stats = measure(&mut loads, &Limits::new(job, clock.now()), || still_there(device).map(|()| true))?;
    Ok(Report::new(job, depth, device.negotiated(), &stats, None))
}

/// An interruption ends the measurement.
fn still_there<W: Guest>(device: &mut Device<W>) -> Result<(), Failure> {
    match device.poll_control()? {
        Some(DeviceEvent::Closing) => Err(Failure::TakenAway),
        None | Some(DeviceEvent::Resized { .. }) => Ok(()),
        Some(_) => Err(Failure::Gone),
    }
}
