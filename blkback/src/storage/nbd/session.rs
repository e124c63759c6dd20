//! A connection to a server, and the jobs that are under way on it.
//!
//! Their memory is the library's until the server has answered or the connection is closed, so nobody gets them back before. Nothing
//! here blocks.
//!
//! Unsafe stands here because a C library is called, which keeps pointers (ADR-0012). What holds for each call: the handle comes from
//! `nbd_create` and is closed once; strings are copied before the call returns.
#![expect(unsafe_code, reason = "a C library is called; see the module documentation")]

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    os::fd::{IntoRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{errno::Errno, poll::PollFlags};

use super::{
    facts::Facts,
    ffi::{Completion, Functions, Raw, functions},
    uri::Tls,
    work::{Piece, Work},
};
use crate::storage::Action;

/// Commands under way on a connection at most. More wait here.
const COMMANDS: u32 = 128;

/// The library's `LIBNBD_TLS_REQUIRE`.
const TLS_REQUIRE: c_int = 2;
/// The library's `LIBNBD_AIO_DIRECTION_READ` and `_WRITE`.
const DIRECTIONS: [(c_uint, PollFlags); 2] = [(1, PollFlags::POLLIN), (2, PollFlags::POLLOUT)];

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// What there is to say about the export is being said.
    Shaking,
    /// Commands are taken.
    Ready,
    /// It is over.
    Gone,
}

/// A connection, and what is under way on it.
pub(super) struct Session {
    library: &'static Functions,
    handle: Raw,
    /// One for each command; the library has pointers to those that are under way.
    notes: Box<[Note]>,
    /// Those that are not.
    free: Vec<u32>,
    /// Where the notes lead; the library's calls fill it, and only they.
    answers: Box<Answers>,
    works: Vec<Option<UnderWay>>,
    /// Of `works`, those of which not all is in commands yet, in order.
    cutting: VecDeque<usize>,
    /// The most bytes that a command moves.
    payload: usize,
    over: Option<String>,
}

/// Notes of which the command was answered, and how.
type Answers = RefCell<Vec<(u32, c_int)>>;

/// What a command is known by.
struct Note {
    index: u32,
    work: Cell<usize>,
    answers: *const Answers,
}

struct UnderWay {
    work: Work,
    /// Its memory.
    memory: *mut u8,
}

impl Session {
    /// Begins to talk on a connected socket. Errors, for people: the library is missing, or does not like what it is told.
    pub(super) fn begin(socket: OwnedFd, export: &CStr, tls: Option<&Tls>) -> Result<Self, String> {
        let library = functions().map_err(|error| error.to_string())?;
        // SAFETY: it takes nothing, and what it returns is looked at.
        let handle = unsafe { (library.create)() };
        if handle.is_null() {
            return Err("libnbd has no memory".into());
        }
        let answers = Box::new(RefCell::new(Vec::with_capacity(COMMANDS as usize)));
        let to: *const Answers = &raw const *answers;
        let note = |index| Note { index, work: Cell::new(0), answers: to };
        let mut session = Self {
            library,
            handle,
            notes: (0..COMMANDS).map(note).collect(),
            free: (0..COMMANDS).rev().collect(),
            answers,
            works: Vec::new(),
            cutting: VecDeque::new(),
            payload: 0,
            over: None,
        };
        session.set_up(export, tls)?;
        // SAFETY: the descriptor is given away, whatever comes of it.
        session.told(unsafe { (library.aio_connect_socket)(handle, socket.into_raw_fd()) })?;
        Ok(session)
    }

    fn set_up(&mut self, export: &CStr, tls: Option<&Tls>) -> Result<(), String> {
        let (library, handle) = (self.library, self.handle);
        // SAFETY: the string ends with a zero.
        self.told(unsafe { (library.set_export_name)(handle, export.as_ptr()) })?;
        // Every byte of a simple reply is data, so that no read can succeed with bytes in its memory that were there before, another
        // guest's perhaps: a structured reply may leave gaps. It takes fewer calls, too.
        // SAFETY: it is given a value.
        self.told(unsafe { (library.set_request_structured_replies)(handle, false) })?;
        // SAFETY: it is given a value.
        self.told(unsafe { (library.set_pread_initialize)(handle, false) })?;
        let Some(tls) = tls else { return Ok(()) };
        // SAFETY: it is given a value.
        self.told(unsafe { (library.set_tls)(handle, TLS_REQUIRE) })?;
        let mut tell = |call: unsafe extern "C" fn(Raw, *const c_char) -> c_int, text: &str| {
            let text = CString::new(text).map_err(|_| "a zero byte in the URI".to_owned())?;
            // SAFETY: the string ends with a zero.
            self.told(unsafe { call(handle, text.as_ptr()) })
        };
        match tls {
            Tls::Psk { file, user } => {
                tell(library.set_tls_psk_file, file)?;
                user.as_ref().map_or(Ok(()), |user| tell(library.set_tls_username, user))
            }
            Tls::Certificates { folder, server: Some(server) } => {
                let verify = library.set_tls_hostname.ok_or(
                    "this libnbd cannot tell whose certificate a server has (1.22 can): use tls-psk-file=, or tls-verify-peer=false",
                )?;
                tell(library.set_tls_certificates, folder)?;
                tell(verify, server)
            }
            Tls::Certificates { folder, server: None } => {
                tell(library.set_tls_certificates, folder)?;
                // SAFETY: it is given a value.
                self.told(unsafe { (library.set_tls_verify_peer)(handle, false) })
            }
        }
    }

    /// What became of a call that says -1 for a failure.
    fn told(&mut self, result: c_int) -> Result<(), String> {
        if result != -1 {
            return Ok(());
        }
        // SAFETY: it takes nothing, and is asked in the thread in which the call failed.
        let text = unsafe { (self.library.get_error)() };
        if text.is_null() {
            return Err("no reason is told".into());
        }
        // SAFETY: a string of the library's, which it keeps until this thread's next call.
        Err(super::plain(&unsafe { CStr::from_ptr(text) }.to_string_lossy()))
    }

    /// Where the connection is.
    pub(super) fn state(&self) -> State {
        if self.over.is_some() {
            return State::Gone;
        }
        // SAFETY: only the handle is used.
        match unsafe { (self.library.aio_is_connecting)(self.handle) } {
            0 => State::Ready,
            _ => State::Shaking,
        }
    }

    /// Why it is over, if it is.
    pub(super) fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }

    /// What the socket is to be watched for.
    pub(super) fn events(&self) -> PollFlags {
        // SAFETY: only the handle is used.
        let wanted = unsafe { (self.library.aio_get_direction)(self.handle) };
        DIRECTIONS.iter().filter(|(bit, _)| wanted & bit != 0).map(|(_, event)| *event).collect()
    }

    /// Does what can be done now that the socket is ready for `events`.
    pub(super) fn proceed(&mut self, events: PollFlags) {
        let (library, handle) = (self.library, self.handle);
        let wanted = self.events();
        let broken = events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL);
        let notify = if wanted.contains(PollFlags::POLLIN) && (broken || events.contains(PollFlags::POLLIN)) {
            library.aio_notify_read
        } else if wanted.contains(PollFlags::POLLOUT) && (broken || events.contains(PollFlags::POLLOUT)) {
            library.aio_notify_write
        } else {
            return;
        };
        // SAFETY: memory of commands that are under way is in `self.works`, and their notes in `self.notes`.
        let told = unsafe { notify(handle) };
        let told = self.told(told);
        // One that is over waits for nothing.
        if told.is_err() || self.events().is_empty() {
            self.look_whether_over(told);
        }
    }

    fn look_whether_over(&mut self, told: Result<(), String>) {
        // SAFETY: only the handle is used.
        let dead = unsafe { (self.library.aio_is_dead)(self.handle) } != 0;
        // SAFETY: only the handle is used.
        if dead || unsafe { (self.library.aio_is_closed)(self.handle) } != 0 {
            let why = told.err().filter(|_| dead);
            self.over
                .get_or_insert_with(|| why.unwrap_or_else(|| "the server has closed the connection".into()));
        }
    }

    /// What the server says of the export; of a connection that is ready. Errors: it says nothing.
    pub(super) fn facts(&self) -> Result<Facts, String> {
        let (library, handle) = (self.library, self.handle);
        // SAFETY: only the handle is used.
        let bytes = unsafe { (library.get_size)(handle) };
        let bytes =
            u64::try_from(bytes).map_err(|_| "the server tells no size that a disk could have".to_owned())?;
        // SAFETY: it is given a value.
        let block = |which| unsafe { (library.get_block_size)(handle, which) };
        let [least, best, most] =
            [block(0), block(1), block(2)].map(|bytes| u64::try_from(bytes).unwrap_or(0));
        // SAFETY: only the handle is used.
        let can = |what: unsafe extern "C" fn(Raw) -> c_int| unsafe { what(handle) } == 1;
        let (read_only, flush, trim) =
            (can(library.is_read_only), can(library.can_flush), can(library.can_trim));
        Ok(Facts { bytes, least, best, most, read_only, flush, trim })
    }

    /// From now on commands move `bytes` at most, a multiple of what the server wants.
    pub(super) fn limit(&mut self, bytes: usize) {
        self.payload = bytes;
    }
}

/// What is under way.
impl Session {
    /// True if it takes another job now.
    pub(super) fn has_room(&self) -> bool {
        self.cutting.is_empty() && !self.free.is_empty()
    }

    /// True if an answer takes longer than `time`, or than its job may take.
    pub(super) fn is_overdue(&self, now: Instant, time: Duration) -> bool {
        self.works.iter().flatten().any(|UnderWay { work, .. }| {
            now.saturating_duration_since(work.sent) >= time || work.until.is_some_and(|until| until <= now)
        })
    }

    /// True if there is nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.notes.len() && self.cutting.is_empty()
    }

    /// Orders what a job wants, as fast as the connection takes it.
    pub(super) fn start(&mut self, mut work: Work) {
        let memory = work.job.bytes_mut().as_mut_ptr();
        let under_way = Some(UnderWay { work, memory });
        let index = self.works.iter().position(Option::is_none).unwrap_or(self.works.len());
        match self.works.get_mut(index) {
            Some(place) => *place = under_way,
            None => self.works.push(under_way),
        }
        self.cutting.push_back(index);
        self.order();
    }

    /// Makes commands of what is not in commands yet, as many as there can be.
    fn order(&mut self) {
        while self.over.is_none()
            && let Some(&index) = self.cutting.front()
            && let Some(&note) = self.free.last()
        {
            let piece = self.works.get_mut(index).and_then(Option::as_mut).and_then(|under_way| {
                Some((under_way.work.cut(self.payload)?, under_way.work.job.action(), under_way.memory))
            });
            let Some((piece, action, memory)) = piece else {
                self.cutting.pop_front();
                continue;
            };
            let Some(known_by) = self.notes.get(note as usize) else { return };
            known_by.work.set(index);
            let completion = Completion {
                callback: answered,
                user_data: (&raw const *known_by).cast_mut().cast(),
                free: None,
            };
            self.free.pop();
            if self.command(action, memory, &piece, completion) == -1 {
                let told = self.told(-1);
                self.look_whether_over(told);
                // It is not under way, and the library will not call back.
                let why = if self.over.is_some() { Errno::ENOTCONN } else { Errno::EIO };
                self.answers.borrow_mut().push((note, why as c_int));
            }
        }
    }

    /// Makes a command of a piece of a job's `memory`. -1: it could not be.
    fn command(&self, action: Action, memory: *mut u8, piece: &Piece, completion: Completion) -> i64 {
        let (library, handle, Piece { offset, start, len }) = (self.library, self.handle, *piece);
        // SAFETY: a piece that is read or written is `len` bytes of the job's memory from `start` on, at an address that does not change;
        // the job is in `self.works`, from where nobody takes it, and in which nobody looks at its memory, before the library has called
        // back or closed the handle. For the same time the completion's note is in `self.notes`, a box of its own.
        unsafe {
            match action {
                Action::Read { .. } => {
                    (library.aio_pread)(handle, memory.add(start).cast(), len, offset, completion, 0)
                }
                Action::Write { .. } => {
                    (library.aio_pwrite)(handle, memory.add(start).cast(), len, offset, completion, 0)
                }
                Action::Flush => (library.aio_flush)(handle, completion, 0),
                Action::Discard { .. } => (library.aio_trim)(handle, len as u64, offset, completion, 0),
            }
        }
    }

    /// Hands every job to `each` of which all has been answered, with the outcome in it.
    pub(super) fn finished(&mut self, mut each: impl FnMut(Work)) {
        loop {
            let Some((note, errno)) = self.answers.borrow_mut().pop() else { break };
            self.free.push(note);
            let Some(index) = self.notes.get(note as usize).map(|note| note.work.get()) else { continue };
            if errno == Errno::ENOTCONN as c_int || errno == Errno::ESHUTDOWN as c_int {
                // The library's word for a lost connection, and the server's for one that is about to be.
                self.over.get_or_insert_with(|| "the server is shutting down".into());
                continue;
            }
            let outcome = if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno)) };
            let Some(place) = self.works.get_mut(index) else { continue };
            if let Some(UnderWay { work, .. }) = place.take_if(|under_way| under_way.work.answered(outcome)) {
                self.cutting.retain(|other| *other != index);
                each(work);
            }
        }
        self.order();
    }

    /// Lets the connection go, and gives back what was not finished on it, in the order in which it came.
    pub(super) fn close(mut self) -> Vec<Work> {
        self.let_go();
        let works = std::mem::take(&mut self.works).into_iter().flatten();
        let mut works: Vec<_> = works.map(|under_way| under_way.work).collect();
        works.sort_by_key(|work| work.order);
        works
    }

    /// After this the library has no pointer of ours.
    fn let_go(&mut self) {
        let handle = std::mem::replace(&mut self.handle, std::ptr::null_mut());
        // SAFETY: it is closed once, and null is nothing to it.
        unsafe { (self.library.close)(handle) };
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Notes how a command was answered. 1: the library may forget it.
///
/// # Safety
///
/// `user_data` is a [`Note`] of a [`Session`] that has not closed its handle, and `error` a number.
unsafe extern "C" fn answered(user_data: *mut c_void, error: *mut c_int) -> c_int {
    // SAFETY: as promised. A session's answers live as long as its notes, and are touched by its thread only, which is this one.
    let (note, error) = unsafe { (&*user_data.cast::<Note>(), *error) };
    // SAFETY: the same.
    if let Ok(mut answers) = unsafe { &*note.answers }.try_borrow_mut() {
        answers.push((note.index, error));
    }
    1
}
