//! The in-flight log as a killed daemon, a full disk or a stranger may have left it.

use std::{cell::RefCell, fs};

use arbitrary::Arbitrary;
use blkback::log::{Identity, Log, recover::recover};
use blkif_proto::{Entry, MAX_ENTRY_SIZE, Status};
use ringbuf::Index;
use tempfile::TempDir;

/// Ring entries, and records.
const ENTRIES: u32 = 32;

thread_local! {
    /// One folder a thread: making one costs more than reading a log.
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// A file of this name, in memory, for this thread's runs one after the other.
pub(super) fn scratch(name: &str) -> std::path::PathBuf {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir_in("/dev/shm").unwrap());
        folder.path().join(name)
    })
}

#[derive(Debug, Arbitrary)]
struct Script<'a> {
    start: u32,
    /// Requests of an honest life: their entries, and how far each came.
    requests: Vec<(u8, Fate)>,
    /// Then words of the file are written over, and it may be cut.
    words: Vec<(u16, u64)>,
    cut: Option<u16>,
    /// Or all of it is these bytes.
    instead: Option<&'a [u8]>,
    published: u8,
    strides: u8,
}

#[derive(Debug, Arbitrary)]
enum Fate {
    Taken,
    Answered(i8),
    Published,
}

/// Whatever the file holds: it is refused, or what is left adds up and can be gone on with.
pub fn log(data: &[u8]) {
    let Some(script) = super::script::<Script<'_>>(data) else { return };
    let path = scratch("log");
    let identity = Identity { text: "the disk of a fuzzer".into(), entries: ENTRIES };
    let start = Index::new(script.start);
    if live(&script, &path, &identity, start).is_none() {
        return;
    }
    spoil(&script, &path);
    let published = start.plus(u32::from(script.published) % (ENTRIES + 2));
    let stride = |entry: &Entry| 1 + u32::from(entry[1] & script.strides) % 5;
    let Ok(mut left) = recover(&path, &identity, published, stride) else { return };
    let waiting = left.consumed.since(published);
    assert!(waiting <= ENTRIES, "{waiting} requests of a ring of {ENTRIES}");
    assert!(left.unfinished.len() + left.untold.len() <= waiting as usize);
    let mut entries = [[0; MAX_ENTRY_SIZE]; 8];
    let mut at = published;
    for (place, status) in left.untold.clone() {
        left.log.read(place, &mut entries);
        left.log.answer(place, status, at);
        at = at.plus(stride(&entries[0]));
    }
    left.log.published();
    for place in left.unfinished.clone() {
        left.log.read(place, &mut entries);
        left.log.answer(place, Status::OKAY, at);
        at = at.plus(stride(&entries[0]));
    }
    left.log.published();
    assert_eq!(at, left.consumed, "every entry is answered once");
    // The whole ring fits again.
    for n in 0..ENTRIES {
        assert!(left.log.take(left.consumed.plus(n), &[[7; MAX_ENTRY_SIZE]]).is_some(), "no room for {n}");
    }
    left.log.remove();
}

/// What a daemon would have noted.
fn live(script: &Script<'_>, path: &std::path::Path, identity: &Identity, start: Index) -> Option<()> {
    let mut log = Log::create(path, identity, start).ok()?;
    let (mut index, mut answers) = (start, start);
    for (arg, fate) in script.requests.iter().take(ENTRIES as usize) {
        let mut entry = [0; MAX_ENTRY_SIZE];
        entry[1] = *arg;
        let count = 1 + usize::from(arg & script.strides) % 5;
        let Some(place) = log.take(index, &vec![entry; count]) else { break };
        index = index.plus(count as u32);
        log.commit(index);
        match fate {
            Fate::Taken => {}
            Fate::Answered(status) => {
                log.answer(place, Status(i16::from(*status)), answers);
                answers = answers.plus(count as u32);
            }
            Fate::Published => {
                log.answer(place, Status::OKAY, answers);
                answers = answers.plus(count as u32);
                log.published();
            }
        }
    }
    Some(())
}

fn spoil(script: &Script<'_>, path: &std::path::Path) {
    if let Some(bytes) = script.instead {
        return fs::write(path, bytes).unwrap();
    }
    if script.words.is_empty() && script.cut.is_none() {
        return;
    }
    let mut file = fs::read(path).unwrap();
    for (at, word) in &script.words {
        // The header is 512 words; most of what counts is behind it.
        let at = 8 * (usize::from(*at) % (file.len() / 8));
        file[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    file.truncate(script.cut.map_or(file.len(), usize::from));
    fs::write(path, file).unwrap();
}
