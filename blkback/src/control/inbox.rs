//! News for a device's task, bounded however much happens: changes are merged into one, workers report a few times for each
//! queue.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{ctl::desk::Ask, data::handle::Report, storage::Image};

/// News for a device's task.
pub enum Message {
    /// Nodes changed.
    Look,
    /// The image may have another size.
    Measure,
    /// A worker reports.
    Report(Report),
    /// The image is open, or why not.
    Opened(Result<Arc<Image>, String>),
    /// The other medium is open, or why not.
    Exchanged(Result<Arc<Image>, String>),
    /// Another medium is served, or none and why.
    Medium(Result<(), String>),
    /// The image was to have another size.
    Resized(io::Result<()>, Ask),
    /// An administrator asks.
    Ask(Ask),
    /// The daemon ends.
    Shutdown,
}

/// Where a device's task hears of things.
pub struct Inbox {
    messages: UnboundedReceiver<Message>,
    looking: Arc<AtomicBool>,
}

/// Where a device's task is told of things.
#[derive(Clone)]
pub struct DeviceHandle {
    inbox: UnboundedSender<Message>,
    /// A look is on its way: no second one is sent.
    looking: Arc<AtomicBool>,
    /// The disk's name in the guest, once that is known.
    name: Arc<OnceLock<String>>,
}

/// An inbox and the handle on it.
pub fn inbox() -> (Inbox, DeviceHandle) {
    let (send, messages) = unbounded_channel();
    let looking = Arc::new(AtomicBool::new(false));
    (
        Inbox { messages, looking: Arc::clone(&looking) },
        DeviceHandle { inbox: send, looking, name: Arc::default() },
    )
}

impl Inbox {
    /// The next message; never none while a handle exists. What changes after a [`Message::Look`] was taken sends another.
    pub async fn next(&mut self) -> Option<Message> {
        let message = self.messages.recv().await;
        if let Some(Message::Look) = message {
            self.looking.store(false, Release);
        }
        message
    }
}

impl DeviceHandle {
    /// Something changed in the device's directories. However often: one message waits.
    pub fn look(&self) {
        if !self.looking.swap(true, AcqRel) {
            self.send(Message::Look);
        }
    }

    /// True when a change was noted that the task has not looked at.
    pub fn is_stale(&self) -> bool {
        self.looking.load(Acquire)
    }

    /// The disk's name in the guest, as far as it is known.
    pub fn name(&self) -> Option<&str> {
        self.name.get().map(String::as_str)
    }

    /// Makes the disk's name known. It does not change.
    pub fn set_name(&self, name: &str) {
        self.name.get_or_init(|| name.to_owned());
    }

    /// Leaves a message. A task that has ended has no use for it.
    pub fn send(&self, message: Message) {
        _ = self.inbox.send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_of_changes_is_one_message() {
        let (mut inbox, handle) = inbox();
        (0..1000).for_each(|_| handle.look());
        handle.send(Message::Measure);
        assert!(handle.is_stale());
        assert!(matches!(inbox.next().await, Some(Message::Look)));
        assert!(!handle.is_stale());
        assert!(matches!(inbox.next().await, Some(Message::Measure)));
        handle.look();
        assert!(matches!(inbox.next().await, Some(Message::Look)));
    }
}
