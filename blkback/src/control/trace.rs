//! Requests with their times, asked of all workers and put together.

use std::{future::Future, time::Duration};

use blkif_observe::trace::{End, Name, Request, Trace};
use blkif_proto::Op;
use tokio::sync::mpsc::unbounded_channel;

use super::workers::Workers;
use crate::data::{
    handle::Order,
    trace::{TraceSpec, Traced},
};

/// Most requests of one worker in a trace: some 16 MiB.
pub const MOST: usize = 1 << 16;

/// Traces requests of one device, named as in [`Name::device`], or of all, until one worker has had so many or `until` is done. Another
/// trace that is under way ends.
pub async fn trace(
    workers: &Workers,
    device: Option<&str>,
    requests: usize,
    until: impl Future<Output = ()>,
) -> Trace {
    let names = workers.remember_names();
    let connection = device.map(|device| names.connection(device).unwrap_or(u64::MAX));
    let (done, mut traced) = unbounded_channel();
    workers.order_all(|| {
        let spec = TraceSpec { requests: requests.min(MOST), connection, done: done.clone() };
        Order::Trace(Box::new(spec))
    });
    drop(done);
    let mut all: Vec<Traced> = Vec::new();
    // The first that is full ends it for all: what the others see later would lie beside nothing.
    tokio::select! {
        full = traced.recv() => all.extend(full.into_iter().flatten()),
        () = until => {}
    }
    workers.order_all(|| Order::EndTrace);
    while let Some(some) = traced.recv().await {
        all.extend(some);
    }
    let name = |traced: &Traced| names.of(traced.key.connection);
    // Each worker has its own.
    all.sort_by_key(|traced| traced.times.seen);
    Trace { requests: all.iter().take(requests).map(|traced| request(traced, name(traced))).collect() }
}

fn request(traced: &Traced, device: String) -> Request {
    let Traced { key, id, op, sector, bytes, status, times, kicked, copied, published } = *traced;
    let (op, bytes) = match op {
        Op::Read => ("read", bytes as u64),
        Op::Write => ("write", bytes as u64),
        Op::WriteBarrier => ("barrier", bytes as u64),
        Op::Flush => ("flush", bytes as u64),
        Op::Discard { sectors, .. } => ("discard", blkif_proto::sector_bytes(sectors).unwrap_or(0)),
    };
    let name = Name {
        end: End::Backend,
        device,
        queue: key.queue,
        id: format!("{id:x}"),
        op: op.to_owned(),
        sector,
        bytes,
        status: status.0,
    };
    let at = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let stages = [
        ("ring", at(times.taken)),
        ("admit", at(times.admitted)),
        ("map", at(times.submitted)),
        ("submit", at(kicked)),
        ("storage", at(times.reaped)),
        ("copy out", at(copied)),
        ("respond", at(published)),
    ];
    Request::new(name, at(times.seen), &stages)
}
