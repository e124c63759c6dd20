//! A driver with a thread of its own, in the engine, against the suite.

use std::{
    sync::{Mutex, mpsc},
    thread,
};

use super::*;
use crate::storage::{
    DiscardLimits, Engine, Geometry, Storage as _,
    contract::{self, LEAST_BYTES, Scattered},
};

/// A disk in memory that a thread works on, the later jobs of a batch first. It drops a job that begins at [`DROPPED`].
#[derive(Debug)]
struct Far {
    jobs: mpsc::Sender<Option<Job>>,
    bytes: u64,
}

const DROPPED: u64 = LEAST_BYTES - 512;

impl Far {
    fn new() -> Self {
        let (send, jobs) = mpsc::channel::<Option<Job>>();
        thread::spawn(move || {
            let disk = Mutex::new(vec![0; usize::try_from(LEAST_BYTES).unwrap()]);
            let mut batch = Vec::new();
            for job in jobs {
                match job {
                    Some(job) => batch.push(job),
                    None => batch.drain(..).rev().for_each(|job| work(&mut disk.lock().unwrap(), job)),
                }
            }
        });
        Self { jobs: send, bytes: LEAST_BYTES }
    }
}

fn work(disk: &mut [u8], mut job: Job) {
    let range = |offset: u64, len: usize| {
        let start = usize::try_from(offset).unwrap();
        start..start + len
    };
    let outcome = match job.action() {
        Action::Read { offset: DROPPED } => return drop(job),
        Action::Read { offset } => match disk.get(range(offset, job.len())) {
            Some(found) => {
                job.bytes_mut().copy_from_slice(found);
                Ok(())
            }
            None => Err(Errno::EIO),
        },
        Action::Write { offset } => {
            disk[range(offset, job.len())].copy_from_slice(job.bytes());
            Ok(())
        }
        Action::Flush => Ok(()),
        Action::Discard { offset, len, .. } => {
            disk[range(offset, usize::try_from(len).unwrap())].fill(0);
            Ok(())
        }
    };
    job.finish(outcome);
}

impl Driver for Far {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn start(&self, job: Job) {
        self.jobs.send(Some(job)).unwrap();
    }

    fn kick(&self) {
        self.jobs.send(None).unwrap();
    }
}

fn image(read_only: bool) -> Arc<Image> {
    let geometry = Geometry {
        sector_size: 512,
        physical_sector_size: 4096,
        read_only,
        discard: Some(DiscardLimits { granularity: 512, alignment: 0, secure: false }),
        direct_io: false,
        flush: true,
    };
    let claim = crate::storage::Claim { name: "far".into(), writes: !read_only, shared: false };
    Arc::new(Image::driven("far".into(), Arc::new(Far::new()), geometry, Err(claim)).unwrap())
}

#[test]
fn a_driver_in_the_engine() {
    let mut engine = Engine::new().unwrap();
    contract::check(&mut engine, &image(false), true).unwrap();
    contract::check(&mut engine, &image(true), true).unwrap();
}

#[test]
fn a_dropped_job_has_failed() {
    let mut engine = Engine::new().unwrap();
    let disk = engine.attach(&image(false)).unwrap();
    let action = Action::Read { offset: DROPPED };
    let op = Op { disk, action, outcome: Ok(()), data: Scattered::default() };
    assert!(engine.submit(Box::new(op)).is_ok());
    engine.kick().unwrap();
    let op = loop {
        if let Some(op) = engine.reap() {
            break op;
        }
        engine.wait(None).unwrap();
    };
    assert_eq!((op.disk, op.outcome, engine.in_flight()), (disk, Err(Errno::EIO), 0));
}
