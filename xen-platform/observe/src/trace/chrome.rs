//! The file: Chrome's trace events (the Trace Event Format document of the Catapult project).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::{self, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{End, Name, Request, Stage, Trace, lanes::lanes};

/// Why a file cannot be read as a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It is no JSON, or other JSON.
    #[error("is no trace of ours: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no `base`.
    #[error("is no trace of ours: it does not say when it begins")]
    Base,
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(rename = "displayTimeUnit")]
    unit: String,
    #[serde(rename = "otherData")]
    other: BTreeMap<String, String>,
    #[serde(rename = "traceEvents")]
    events: Vec<serde_json::Value>,
}

/// The slices; events of other kinds are for the viewer alone.
#[derive(Deserialize)]
struct Slice {
    ph: String,
    cat: Option<String>,
    name: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    pid: u64,
    #[serde(default)]
    tid: u64,
    #[serde(default)]
    args: serde_json::Value,
}

const BASE: &str = "base";
const REQUEST: &str = "request";
const STAGE: &str = "stage";

impl Trace {
    /// Writes a file. Requests of the same device, queue and id at both ends are connected, in the order of their times.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut requests: Vec<&Request> = self.requests.iter().collect();
        requests.sort_by_key(|request| request.begin());
        let base = requests.first().map_or(0, |request| request.begin());
        let lanes = lanes(&requests);
        let mut tracks = Tracks::default();
        let mut slices = Vec::new();
        let mut sent: HashMap<_, VecDeque<(u64, u64, &Request)>> = HashMap::new();
        let mut number = 0;
        for (request, lane) in requests.iter().zip(lanes) {
            let (pid, tid) = tracks.place(&request.name, lane);
            let Name { op, sector, bytes, .. } = &request.name;
            let name = if *bytes > 0 { format!("{op} {bytes} at {sector}") } else { op.clone() };
            let slice = |name: &str, cat: &str, begin: u64, end: u64| {
                let (ts, dur) = (micros(begin - base), micros(end - begin));
                json!({"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur})
            };
            let mut whole = slice(&name, REQUEST, request.begin(), request.end());
            if let Some(whole) = whole.as_object_mut() {
                whole.insert("args".into(), serde_json::to_value(&request.name)?);
            }
            slices.push(whole);
            slices
                .extend(request.stages.iter().map(|stage| slice(&stage.name, STAGE, stage.begin, stage.end)));
            let same = sent.entry(request.name.both()).or_default();
            if request.name.end == End::Frontend {
                same.push_back((pid, tid, request));
            } else if let Some((from, row, frontend)) = same.pop_front() {
                // To the middle of what is connected: an arrow belongs to the slice that is there at its time.
                let mut arrow = |at: [(u64, u64, u64); 2]| {
                    number += 1;
                    for ((ph, (pid, tid, time)), bind) in
                        ["s", "f"].into_iter().zip(at).zip([None, Some("e")])
                    {
                        let ts = micros(time - base);
                        slices
                            .push(json!({"ph": ph, "cat": "ring", "name": "ring", "id": number, "bp": bind,
                            "pid": pid, "tid": tid, "ts": ts}));
                    }
                };
                let sent = frontend
                    .stages
                    .iter()
                    .find(|stage| stage.name == "publish")
                    .map_or(frontend.begin(), |stage| stage.end);
                arrow([(from, row, sent.min(request.begin())), (pid, tid, request.begin())]);
                let taken = frontend
                    .stages
                    .iter()
                    .find(|stage| stage.name == "complete")
                    .map_or(frontend.end(), |stage| stage.begin);
                arrow([(pid, tid, request.end()), (from, row, taken.max(request.end()))]);
            }
        }
        let mut events = tracks.names();
        events.append(&mut slices);
        let other = BTreeMap::from([(BASE.to_owned(), base.to_string())]);
        serde_json::to_writer(&mut *out, &File { unit: "ns".into(), other, events })?;
        out.write_all(b"\n")
    }

    /// Reads a file that was written so.
    pub fn read(text: &[u8]) -> Result<Self, TraceError> {
        let file: File = serde_json::from_slice(text)?;
        let base = file.other.get(BASE).and_then(|base| base.parse().ok()).ok_or(TraceError::Base)?;
        let mut requests: Vec<Request> = Vec::new();
        // The request that each row is at.
        let mut rows: HashMap<(u64, u64), usize> = HashMap::new();
        for event in file.events {
            let slice: Slice = serde_json::from_value(event)?;
            let row = (slice.pid, slice.tid);
            match (slice.ph.as_str(), slice.cat.as_deref()) {
                ("X", Some(REQUEST)) => {
                    rows.insert(row, requests.len());
                    requests.push(Request { name: serde_json::from_value(slice.args)?, stages: Vec::new() });
                }
                ("X", Some(STAGE)) => {
                    if let Some(request) = rows.get(&row).and_then(|at| requests.get_mut(*at)) {
                        let begin = nanos(slice.ts, base);
                        let end = begin.saturating_add(nanos(slice.dur, 0));
                        request.stages.push(Stage { name: slice.name, begin, end });
                    }
                }
                _ => {}
            }
        }
        Ok(Self { requests })
    }
}

/// Processes and threads, as the viewer shows them.
#[derive(Default)]
struct Tracks<'a> {
    rows: BTreeMap<(u64, &'a str, u32, usize), u64>,
}

impl<'a> Tracks<'a> {
    fn place(&mut self, name: &'a Name, lane: usize) -> (u64, u64) {
        let pid = match name.end {
            End::Frontend => 1,
            End::Backend => 2,
        };
        let next = self.rows.len() as u64 + 1;
        (pid, *self.rows.entry((pid, name.device.as_str(), name.queue, lane)).or_insert(next))
    }

    fn names(&self) -> Vec<serde_json::Value> {
        let named = |what: &str, pid: u64, tid: u64, name: &str| json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}});
        let sorted = |pid: u64, tid: u64, place: usize| json!({"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": place}});
        let mut events =
            vec![named("process_name", 1, 0, "blkfront"), named("process_name", 2, 0, "blkback")];
        for (place, ((pid, device, queue, lane), tid)) in self.rows.iter().enumerate() {
            events.push(named("thread_name", *pid, *tid, &format!("{device} queue {queue} #{lane}")));
            events.push(sorted(*pid, *tid, place));
        }
        events
    }
}

#[expect(clippy::cast_precision_loss, reason = "a trace of a hundred days is exact to the nanosecond")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of a trace are not negative"
)]
fn nanos(micros: f64, base: u64) -> u64 {
    base.saturating_add((micros * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests;
