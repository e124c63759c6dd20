//! What a log and its ring say together, after the process that wrote them is gone.
//!
//! Only the log is believed without a second look, and not even that wholly: it is checked as a stranger's would be, and what it
//! says must add up with what the ring says. The ring alone can be wrong in ways that look right, as a killed process may have
//! written answers over requests before it published them.

use std::{fs::File, io, path::Path};

use blkif_proto::{Entry, MAX_ENTRY_SIZE, Status};
use ringbuf::Index;

use super::{
    Log,
    format::{self, Header, Identity, NONE, Record, State},
    memory::Memory,
};

/// What is left to be done.
#[derive(Debug)]
pub struct Leftover {
    /// The log, to be gone on with.
    pub log: Log,
    /// The ring index up to which requests were taken.
    pub consumed: Index,
    /// Places of requests that were taken and not done, in the order in which they were taken.
    pub unfinished: Vec<u32>,
    /// Places of requests that were done, and how each went, that the guest does not know of.
    pub untold: Vec<(u32, Status)>,
}

/// Why a log is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is none, or it cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is of another version of this program.
    #[error("it is of version {0}, and only version {VERSION} is known here", VERSION = format::VERSION)]
    Version(u32),
    /// It is of another connection.
    #[error("it is that of \"{0}\"")]
    Other(String),
    /// It was not written by this program, or was changed.
    #[error("it is damaged: {0}")]
    Torn(&'static str),
    /// It is whole, and does not fit the ring.
    #[error("it does not fit the ring: {0}")]
    Unfit(String),
}

/// Reads the log at `path`. It must be that of `identity`, whose guest has seen answers up to `published`, and in which
/// `entries_of` tells how many ring entries a request has, by the first. `published` and the ring's entries are the guest's to
/// forge; a log that does not fit them is refused.
pub fn recover(
    path: &Path,
    identity: &Identity,
    published: Index,
    entries_of: impl Fn(&Entry) -> u32,
) -> Result<Leftover, RecoverError> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut memory = Memory::of(&file, format::length(identity.entries))?;
    match format::read_header(&mut memory) {
        Header::Torn => return Err(RecoverError::Torn("the header")),
        Header::Version(version) => return Err(RecoverError::Version(version)),
        Header::Of(found) if found != *identity => return Err(RecoverError::Other(found.text)),
        Header::Of(_) if memory.len() != format::length(identity.entries) => {
            return Err(RecoverError::Torn("its length"));
        }
        Header::Of(_) => {}
    }
    let consumed = format::consumed(&mut memory);
    let mut requests =
        Requests { memory: &mut memory, used: vec![false; identity.entries as usize], entries: 0 };
    let (mut unfinished, mut untold, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for place in 0..identity.entries {
        let index = requests.record(place).index();
        match requests.record(place).state().ok_or(RecoverError::Torn("a record"))? {
            State::Free => {}
            // Noted, and never counted: the ring still has it.
            State::Taken if !is_before(index, consumed) => over.push(place),
            State::Answered { at, .. } if is_before(at, published) => over.push(place),
            State::Taken => {
                requests.claim(place, &entries_of)?;
                unfinished.push((consumed.since(index), place));
            }
            State::Answered { status, at } => {
                requests.claim(place, &entries_of)?;
                untold.push((at.since(published), place, status));
            }
        }
    }
    let Requests { used, entries, .. } = requests;
    let unanswered = consumed.since(published);
    if unanswered != entries {
        let text = format!("{unanswered} entries were taken and not answered, and it has {entries}");
        return Err(RecoverError::Unfit(text));
    }
    for place in over {
        Record(memory.record(place)).set(State::Free);
    }
    unfinished.sort_unstable_by(|one, other| other.cmp(one));
    untold.sort_unstable_by_key(|(after, ..)| *after);
    let mut free = Vec::with_capacity(used.len());
    free.extend((0..identity.entries).zip(&used).filter(|(_, used)| !**used).map(|(place, _)| place));
    Ok(Leftover {
        log: Log::with(memory, path, free),
        consumed,
        unfinished: unfinished.into_iter().map(|(_, place)| place).collect(),
        untold: untold.into_iter().map(|(_, place, status)| (place, status)).collect(),
    })
}

/// By ring indices, which wrap.
fn is_before(one: Index, other: Index) -> bool {
    one != other && other.since(one) < 1 << 31
}

/// Records that requests were found in.
struct Requests<'a> {
    memory: &'a mut Memory,
    used: Vec<bool>,
    /// Ring entries of all of them.
    entries: u32,
}

impl Requests<'_> {
    fn record(&mut self, place: u32) -> Record<'_> {
        Record(self.memory.record(place))
    }

    /// Counts a request in, all of whose records must be there, and its own.
    fn claim(&mut self, head: u32, entries_of: impl Fn(&Entry) -> u32) -> Result<(), RecoverError> {
        let mut entry = [0; MAX_ENTRY_SIZE];
        let mut next = self.record(head).read(&mut entry);
        let mut place = head;
        for left in (0..entries_of(&entry)).rev() {
            match self.used.get_mut(place as usize) {
                Some(used) if !*used => *used = true,
                _ => return Err(RecoverError::Torn("records of one request")),
            }
            self.entries += 1;
            if (left == 0) != (next == NONE) {
                return Err(RecoverError::Torn("the length of a request"));
            }
            place = next;
            next = self.record(place).link();
        }
        Ok(())
    }
}
