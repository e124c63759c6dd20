//! What a device answers to an administrator.

use blkif_proto::SECTOR_SIZE;

use super::Device;
use crate::{
    control::disk,
    ctl::{
        desk::Ask,
        protocol::{Answer, Command, Disk, DiskStats, Failure, FailureKind, Terms},
    },
};

impl Device {
    /// Answers now, or has it done and answered.
    pub(super) async fn answer(&mut self, ask: Ask) {
        match ask.command.clone() {
            Command::Show { .. } => ask.answer(Ok(Answer::Disk(Box::new(self.describe())))),
            Command::Stats { .. } => ask.answer(Ok(Answer::Stats(vec![self.stats()]))),
            Command::Resize { bytes, .. } => self.resize(bytes, ask),
            Command::Eject { .. } => self.insert(disk::EMPTY, ask).await,
            Command::Insert { image, .. } if image.is_empty() => {
                ask.answer(Err(Failure::new(FailureKind::Malformed, "no image is named")));
            }
            Command::Insert { image, .. } => self.insert(&image, ask).await,
            Command::Drain { .. } => self.drain(ask),
            Command::Release { .. } => {
                self.release();
                ask.answer(Ok(Answer::Done(self.id.short())));
            }
            Command::Limit { limits, .. } => {
                let throttles = &self.context.throttles;
                let outcome = limits.map_or(Ok(()), |limits| throttles.set_disk(&self.id, &limits));
                let outcome = outcome.and_then(|()| throttles.of_disk(&self.id));
                ask.answer(outcome.map(Answer::Limits).map_err(Into::into));
            }
            Command::List | Command::LimitGroup { .. } | Command::Trace { .. } => {
                ask.answer(Ok(Answer::Disks(vec![self.describe()])))
            }
        }
    }

    fn describe(&self) -> Disk {
        let record = self.record.as_ref();
        let image = self.image.as_ref();
        let served = image.filter(|image| image.sectors() > 0);
        Disk {
            domain: self.id.domain.parse().unwrap_or_default(),
            device: self.id.device.parse().unwrap_or_default(),
            name: record.and_then(|record| record.dev.clone()),
            kind: self.id.kind.clone(),
            state: format!("{:?}", self.vbd.state()).to_lowercase(),
            image: served
                .map(|_| self.choice.as_ref().map(|choice| choice.source.to_string()).unwrap_or_default()),
            bytes: image.map_or(0, |image| image.sectors() * SECTOR_SIZE as u64),
            read_only: image.is_some_and(|image| image.read_only()),
            removable: record.is_some_and(disk::is_removable),
            drained: self.change.drained,
            error: self.blamed.clone(),
            connection: self.connection.as_ref().map(|connection| {
                let terms = &connection.terms;
                Terms {
                    abi: terms.agreement.abi.as_protocol().to_owned(),
                    queues: terms.agreement.queues,
                    ring_pages: terms.agreement.ring_pages,
                    segments: u32::from(terms.agreement.max_segments),
                    mode: terms.agreement.mode.as_str().to_owned(),
                    persistent: terms.agreement.persistent,
                    strategy: format!("{:?}", terms.strategy).to_lowercase(),
                }
            }),
        }
    }

    fn stats(&self) -> DiskStats {
        let queues = self.connection.iter().flat_map(|connection| connection.stats());
        DiskStats {
            domain: self.id.domain.parse().unwrap_or_default(),
            device: self.id.device.parse().unwrap_or_default(),
            name: self.record.as_ref().and_then(|record| record.dev.clone()),
            queues: queues
                .map(|queue| queue.counters().map(|(name, n)| (name.to_owned(), n)).collect())
                .collect(),
        }
    }
}
