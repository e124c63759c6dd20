//! The daemon's worker, which does its turns when it is told to.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use blkback::{
    data::{
        handle::{Line, Order, Report},
        queue::{QueueKey, QueueSpec, StartError},
        worker::Worker,
    },
    stats::WorkerStats,
};
use xen_platform::{
    DomId,
    fake::{self, Machine},
};

use super::disk::{Disk, Platters};

/// A worker, and the control plane's end of it.
pub(crate) struct Backend {
    /// What is on the disks.
    pub(crate) platters: Platters,
    /// The worker.
    pub(crate) worker: Worker<fake::World, Disk>,
    machine: Machine,
    line: Line,
    reports: mpsc::Receiver<Report>,
    drained: Vec<QueueKey>,
    broken: Vec<QueueKey>,
}

impl Backend {
    /// A worker without queues.
    pub(crate) fn new(machine: &Machine) -> Self {
        let platters = Platters::default();
        let (worker, line, reports) = worker(machine, &platters);
        let machine = machine.clone();
        Self { platters, worker, machine, line, reports, drained: Vec::new(), broken: Vec::new() }
    }

    /// Serves a queue, which may be served again by another worker from then on.
    pub(crate) fn start(&mut self, spec: &mut QueueSpec) -> Result<(), StartError> {
        assert!(self.line.order(Order::Start(Box::new(spec.clone()))));
        self.worker.look_outside();
        self.hear().expect("an answer to the start")?;
        spec.used = spec.log.is_some();
        Ok(())
    }

    /// As `SIGKILL` would end it, and the next one.
    pub(crate) fn kill(&mut self) {
        (self.worker, self.line, self.reports) = worker(&self.machine, &self.platters);
        self.broken.clear();
    }

    /// One turn, and what comes of it.
    pub(crate) fn turn(&mut self) {
        self.worker.look_outside();
        if !self.worker.turn().unwrap() {
            self.worker.arm();
        }
        assert!(self.hear().is_none(), "a start that nobody ordered");
    }

    /// Turns, with all the disk has to do, until nothing is under way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..400 {
            self.worker.look_outside();
            while self.worker.storage_mut().finish(0, false) {}
            let worked = self.worker.turn().unwrap();
            if !worked && !self.worker.storage().has_done() && !self.worker.arm() {
                self.hear();
                return;
            }
        }
        panic!("the worker does not come to rest");
    }

    /// Ends a queue.
    pub(crate) fn drain(&mut self, key: QueueKey) {
        assert!(self.line.order(Order::Drain(key)));
        self.settle();
        self.hear();
        let drained = self.drained.iter().position(|other| *other == key);
        self.drained.swap_remove(drained.expect("a queue is never drained"));
        self.broken.retain(|other| *other != key);
    }

    /// True when the guest of this queue broke the ring's rules.
    pub(crate) fn is_broken(&self, key: QueueKey) -> bool {
        self.broken.contains(&key)
    }

    /// Takes the reports; gives that of a start.
    fn hear(&mut self) -> Option<Result<(), StartError>> {
        let mut started = None;
        for report in self.reports.try_iter() {
            match report {
                Report::Started(_, outcome) => started = Some(outcome),
                Report::Drained(key) => self.drained.push(key),
                Report::Broken(key, text) => {
                    assert!(!text.is_empty() && !self.broken.contains(&key), "{key:?} is broken twice");
                    self.broken.push(key);
                }
                Report::Quiet(_) => {}
                Report::Ended(end) => panic!("the worker ends: {end:?}"),
            }
        }
        started
    }
}

fn worker(
    machine: &Machine,
    platters: &Platters,
) -> (Worker<fake::World, Disk>, Line, mpsc::Receiver<Report>) {
    let (line, mailbox) = Line::new().unwrap();
    let (send, reports) = mpsc::channel();
    let send = Mutex::new(send);
    let report = Arc::new(move |report| _ = send.lock().unwrap().send(report));
    let (dom0, disk) = (machine.world(DomId::DOM0), Disk::new(platters.clone()));
    let worker = Worker::new(&dom0, disk, Duration::ZERO, mailbox, report, Arc::new(WorkerStats::default()));
    (worker.unwrap(), line, reports)
}
