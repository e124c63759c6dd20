//! Errors, sorted by who must act: [`Rejected`] the submitter, [`IoError`] whoever waits for that data, [`DeviceError`] and
//! [`Error`] the owner of the device.

use alloc::string::String;

use blkif_proto::GrantRef;
use xen_platform::{EventError, GrantError, StoreError};

use crate::Io;

/// A step of the life cycle failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// XenStore.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Memory or grants.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// Event channels.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A XenStore key of the other side is missing or makes no sense.
    #[error("{path}: {error}")]
    Record {
        /// The directory of the key.
        path: String,
        /// Which key, and what is wrong with it.
        error: blkif_proto::RecordError,
    },
    /// The backend did not get to the state that the next step needs.
    #[error("backend {backend} is still {state} after {seconds} s; waited for {wanted}")]
    TimedOut {
        /// Its XenStore directory.
        backend: String,
        /// Its state.
        state: blkif_proto::xenbus::State,
        /// What was waited for.
        wanted: &'static str,
        /// How long, in seconds.
        seconds: u64,
    },
    /// The backend closed, or its directory vanished, before the step was done.
    #[error("backend {backend} closed the device{reason}")]
    Closed {
        /// Its XenStore directory.
        backend: String,
        /// What it wrote in its `error` node, with ": " before it, or nothing.
        reason: String,
    },
    /// Not every queue of the device was brought to [`Device::stop`](crate::Device::stop).
    #[error("{given} of {owned} queues given to stop")]
    Queues {
        /// How many came.
        given: usize,
        /// How many the device has.
        owned: usize,
    },
    /// A backend came back and offers fewer queues than the application has.
    #[error("the backend came back with {offered} of {owned} queues")]
    FewerQueues {
        /// What it offers now.
        offered: usize,
        /// How many the device has.
        owned: usize,
    },
    /// The peer broke the protocol.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// The connection is unusable: the backend broke a rule of the ring, or the world failed. All unanswered work of the queue
/// ends with this error; [`Device::stop`](crate::Device::stop) or a reconnection is the way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The backend's producer index cannot be true.
    #[error("the backend's ring index is corrupt")]
    CorruptRing,
    /// A response to no request of ours, or a second one to the same request.
    #[error("response to no outstanding request (id {id:#x})")]
    ForeignResponse {
        /// The id in the response.
        id: u64,
    },
    /// A response names another operation than its request.
    #[error("response to operation {sent} names operation {answered}")]
    WrongOperation {
        /// Operation code of the request.
        sent: u8,
        /// Operation code in the response.
        answered: u8,
    },
    /// The backend answered a request and still maps its pages (the rule after XSA-396). The pages are kept out of use.
    #[error("grant {0} is still mapped after the response")]
    StillMapped(GrantRef),
    /// The backend has answered nothing for [`Config::timeout`](crate::Config::timeout), with somebody waiting
    /// ([`Queue::execute`](crate::Queue::execute)).
    #[error("no answer from the backend within {seconds} s")]
    Silent {
        /// How long, in seconds.
        seconds: u64,
    },
    /// Pages could not be lent or taken back.
    #[error(transparent)]
    Grant(GrantError),
    /// The event channel failed.
    #[error(transparent)]
    Event(EventError),
    /// A request does not fit the limits that it was cut for: a mistake in this crate, found before anything was published.
    #[error("internal error: a request does not fit its ring entries")]
    Unfit,
}

/// Why one [`Io`] ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// The backend answered `BLKIF_RSP_ERROR`.
    #[error("the backend reports an I/O error")]
    Failed,
    /// The backend answered `BLKIF_RSP_EOPNOTSUPP`.
    #[error("the backend does not support the operation")]
    NotSupported,
    /// The backend answered with a status that the protocol does not know.
    #[error("the backend answered with unknown status {0}")]
    UnknownStatus(i16),
    /// The disk that came back after a reconnection cannot take it any more.
    #[error("not possible on the reconnected disk: {0}")]
    Refused(RejectReason),
    /// The queue was stopped before the backend answered; whether it was done is unknown.
    #[error("stopped before the backend answered")]
    Cancelled,
    /// The whole connection is unusable.
    #[error(transparent)]
    Device(DeviceError),
}

/// An [`Io`] that was not accepted; nothing of it has reached the backend.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// The work, as it was given.
    pub io: Io,
    /// Why.
    pub reason: RejectReason,
}

/// Why an [`Io`] was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The queue holds as many as its [depth](crate::Queue::depth) allows: take completions first. Not an error of anyone.
    #[error("the queue is full")]
    Full,
    /// The disk is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The range ends past the end of the disk.
    #[error("sectors {sector}+{count} lie past the end of the disk ({capacity} sectors)")]
    OutOfRange {
        /// First 512-byte sector.
        sector: u64,
        /// Length in 512-byte sectors.
        count: u64,
        /// Size of the disk in 512-byte sectors.
        capacity: u64,
    },
    /// Sector, offset or length is no multiple of the disk's sector size.
    #[error("sector, offset or length is not a multiple of {0} bytes")]
    Misaligned(u32),
    /// The data's range leaves the buffer.
    #[error("the data range leaves the buffer")]
    OutsideBuffer,
    /// The buffer was made by another queue; only that one can lend it.
    #[error("the buffer is another queue's")]
    ForeignBuffer,
    /// A read or write of nothing, or a flush or discard with a buffer.
    #[error("the operation needs data and has none, or the other way round")]
    WrongShape,
    /// The backend does not offer this operation.
    #[error("the backend does not offer this operation")]
    NotSupported,
    /// The connection is unusable.
    #[error(transparent)]
    Device(DeviceError),
}
