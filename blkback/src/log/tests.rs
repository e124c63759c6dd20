//! The process dies at every instant: whatever word was stored last, log and ring tell the next one everything it must know.

use std::{cell::Cell, collections::BTreeMap};

use super::{
    recover::{Leftover, RecoverError, recover},
    *,
};

thread_local! {
    static STORES_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// False once the process is dead, and its stores do not happen any more.
pub(super) fn lives() -> bool {
    let left = STORES_LEFT.get();
    STORES_LEFT.set(left.saturating_sub(1));
    left > 0
}

const ENTRIES: u32 = 8;

fn identity() -> Identity {
    Identity { text: "vbd/1/51712 queue 0 port 3 grants 8, x86_64-abi".into(), entries: ENTRIES }
}

/// The first byte says how many entries the request has.
fn entries_of(first: &Entry) -> u32 {
    first[0].into()
}

/// What a guest asks, and what is answered: a ring without memory.
struct Bench {
    folder: tempfile::TempDir,
    log: Log,
    random: u32,
    /// Where the ring's requests begin.
    start: Index,
    consumed: Index,
    /// The private and the shared index of answers.
    responded: Index,
    published: Index,
    /// By index.
    requests: BTreeMap<u32, Asked>,
}

struct Asked {
    entries: Vec<Entry>,
    place: u32,
    /// Status and slot, once there is one.
    answer: Option<(Status, u32)>,
}

impl Bench {
    fn new(seed: u32) -> Self {
        STORES_LEFT.set(u64::MAX);
        let folder = tempfile::tempdir().unwrap();
        // Indices wrap on the way.
        let start = Index::new(u32::MAX - 20);
        let log = Log::create(&folder.path().join("log"), &identity(), start).unwrap();
        Self {
            folder,
            log,
            random: seed,
            start,
            consumed: start,
            responded: start,
            published: start,
            requests: BTreeMap::new(),
        }
    }

    fn random(&mut self, below: u32) -> u32 {
        self.random = self.random.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (self.random >> 16) % below
    }

    /// One turn of a worker: takes some requests, answers some, in any order. Ends early when the process dies.
    fn turn(&mut self) {
        for _ in 0..self.random(4) {
            let room = ENTRIES - self.consumed.since(self.published);
            if room == 0 {
                break;
            }
            let size = 1 + self.random(room.min(3));
            let mark = u8::try_from(self.consumed.since(self.start) % 200).unwrap();
            let entries: Vec<Entry> = (0..size)
                .map(|n| [if n == 0 { u8::try_from(size).unwrap() } else { mark + 1 }; 112])
                .collect();
            let place = self.log.take(self.consumed, &entries).unwrap();
            self.requests.insert(self.consumed.since(self.start), Asked { entries, place, answer: None });
            self.consumed = self.consumed.plus(size);
        }
        self.log.commit(self.consumed);
        for _ in 0..self.random(4) {
            let open: Vec<u32> = self
                .requests
                .iter()
                .filter(|(_, request)| request.answer.is_none())
                .map(|(index, _)| *index)
                .collect();
            if open.is_empty() {
                break;
            }
            let choice = self.random(u32::try_from(open.len()).unwrap()) as usize;
            let status = [Status::OKAY, Status::ERROR, Status::NOT_SUPPORTED][choice % 3];
            let at = self.responded;
            let Asked { entries, place, answer } = self.requests.get_mut(&open[choice]).unwrap();
            *answer = Some((status, at.since(self.start)));
            self.log.answer(*place, status, at);
            self.responded = at.plus(u32::try_from(entries.len()).unwrap());
        }
        if lives() {
            self.published = self.responded;
        }
        self.log.published();
    }

    /// The process is dead, or as good as that: what the next one learns is what there is.
    fn check(&self) -> Leftover {
        STORES_LEFT.set(u64::MAX);
        let path = self.folder.path().join("log");
        let mut left = recover(&path, &identity(), self.published, entries_of).unwrap();
        let consumed = left.consumed.since(self.start);
        let published = self.published.since(self.start);
        assert!(consumed <= self.consumed.since(self.start));
        let mut expected: Vec<u32> =
            self.requests.keys().copied().filter(|index| *index < consumed).collect();
        expected.retain(|index| self.requests[index].answer.is_none_or(|(_, at)| at >= published));
        let mut found = Vec::new();
        let mut find = |log: &mut Log, place| {
            let mut first = [[0; 112]; 3];
            log.read(place, &mut first);
            let same =
                |request: &Asked| request.place == place && first[..request.entries.len()] == request.entries;
            let index = expected.iter().find(|index| same(&self.requests[index]));
            found.push(*index.expect("the entries are those of a request without an answer"));
            *found.last().unwrap()
        };
        let mut before = None;
        for place in &left.unfinished {
            let index = Some(find(&mut left.log, *place));
            assert!(before < index, "in order");
            before = index;
        }
        let mut slot = published;
        for (place, status) in &left.untold {
            let index = find(&mut left.log, *place);
            assert_eq!(self.requests[&index].answer, Some((*status, slot)), "in the order of their slots");
            slot += u32::try_from(self.requests[&index].entries.len()).unwrap();
        }
        found.sort_unstable();
        assert_eq!(found, expected);
        left
    }

    fn recover(&self) -> Result<Leftover, RecoverError> {
        recover(&self.folder.path().join("log"), &identity(), self.published, entries_of)
    }
}

#[test]
fn death_at_every_store() {
    let mut deaths = 0;
    for seed in 0..24 {
        for stores in 0.. {
            let mut bench = Bench::new(seed);
            STORES_LEFT.set(stores);
            for _ in 0..12 {
                bench.turn();
                if STORES_LEFT.get() == 0 {
                    break;
                }
            }
            let over = STORES_LEFT.get() > 0;
            bench.check();
            deaths += 1;
            if over {
                break;
            }
        }
    }
    assert!(deaths > 5000, "{deaths}");
}

/// The next process goes on with the same log, and may die as well.
#[test]
fn death_after_death() {
    for seed in 0..200 {
        let mut bench = Bench::new(seed);
        for generation in 0..6 {
            let stores = 3 + u64::from(bench.random(160));
            STORES_LEFT.set(stores);
            for _ in 0..8 {
                bench.turn();
                if STORES_LEFT.get() == 0 {
                    break;
                }
            }
            let left = bench.check();
            // What it does not know of is the ring's again.
            bench.consumed = left.consumed;
            bench.responded = bench.published;
            let (published, known) = (bench.published.since(bench.start), left.consumed.since(bench.start));
            bench.requests.retain(|index, request| {
                *index < known && request.answer.is_none_or(|(_, at)| at >= published)
            });
            bench.log = left.log;
            // The answer was not noted any more.
            for request in
                bench.requests.values_mut().filter(|request| left.unfinished.contains(&request.place))
            {
                request.answer = None;
            }
            // Told at once, in the same slots.
            for (place, status) in left.untold {
                let request = bench.requests.values_mut().find(|request| request.place == place).unwrap();
                request.answer = Some((status, bench.responded.since(bench.start)));
                bench.log.answer(place, status, bench.responded);
                bench.responded = bench.responded.plus(u32::try_from(request.entries.len()).unwrap());
            }
            bench.published = bench.responded;
            bench.log.published();
            assert!(bench.log.free.len() <= ENTRIES as usize, "generation {generation}");
        }
    }
}

#[test]
fn a_ring_that_went_elsewhere_is_refused() {
    let mut bench = Bench::new(3);
    (0..9).for_each(|_| bench.turn());
    bench.recover().unwrap();
    bench.published = bench.published.plus(1);
    assert!(matches!(bench.recover(), Err(RecoverError::Unfit(_))));
    bench.published = bench.start;
    assert!(matches!(bench.recover(), Err(RecoverError::Unfit(_))));
}

#[test]
fn another_connections_log_is_refused_and_named() {
    let bench = Bench::new(0);
    let path = bench.folder.path().join("log");
    let other = Identity { text: identity().text.replace("port 3", "port 4"), ..identity() };
    let refused = recover(&path, &other, bench.start, entries_of).unwrap_err();
    assert!(refused.to_string().contains("port 3"), "{refused}");
    let larger = Identity { entries: 16, ..identity() };
    assert!(matches!(recover(&path, &larger, bench.start, entries_of), Err(RecoverError::Other(_))));
    assert!(matches!(
        recover(&path.with_extension("none"), &identity(), bench.start, entries_of),
        Err(RecoverError::Io(_))
    ));
}

/// Whatever bytes a file has, it is read without harm; nothing that differs from what was written in header or records passes
/// unnoticed where it would change what is done.
#[test]
fn damage_does_no_harm() {
    let mut bench = Bench::new(5);
    (0..7).for_each(|_| bench.turn());
    let path = bench.folder.path().join("log");
    let good = fs::read(&path).unwrap();
    for cut in [0, 1, 4095, 4096, good.len() - 1] {
        fs::write(&path, &good[..cut]).unwrap();
        assert!(bench.recover().is_err(), "{cut} bytes");
    }
    let text = identity().text.len();
    for at in 0..24 + text {
        let at = if at < 24 { at } else { 40 + at };
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, bad).unwrap();
        assert!(bench.recover().is_err(), "byte {at}");
    }
    for seed in 0..4000_u32 {
        let mut bad = good.clone();
        bench.random = seed;
        for _ in 0..=bench.random(4) {
            let at = 4032 + bench.random(u32::try_from(good.len()).unwrap() - 4032) as usize;
            bad[at] = u8::try_from(bench.random(256)).unwrap();
        }
        fs::write(&path, bad).unwrap();
        if let Ok(left) = bench.recover() {
            let owed = left.unfinished.len() + left.untold.len();
            assert!(owed <= ENTRIES as usize);
        }
    }
}

#[test]
fn another_version_is_told_apart() {
    let bench = Bench::new(0);
    let path = bench.folder.path().join("log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, bytes).unwrap();
    let refused = bench.recover().unwrap_err().to_string();
    assert_eq!(refused, "it is of version 2, and only version 1 is known here");
}

/// Begun in the midst of a ring's life, it fits that before anything else is stored.
#[test]
fn a_new_log_fits_its_ring_at_once() {
    let bench = Bench::new(0);
    let left = bench.recover().unwrap();
    assert_eq!((left.consumed, left.unfinished.len(), left.untold.len()), (bench.start, 0, 0));
}

#[test]
fn a_full_log_takes_nothing() {
    let mut bench = Bench::new(0);
    let entry = [[1; 112]];
    for n in 0..ENTRIES {
        assert!(bench.log.take(bench.start.plus(n), &entry).is_some());
    }
    assert_eq!(bench.log.take(bench.start, &entry), None);
    let path = bench.folder.path().join("log");
    std::mem::replace(
        &mut bench.log,
        Log::create(&path.with_extension("other"), &identity(), bench.start).unwrap(),
    )
    .remove();
    assert!(!path.exists());
}
