//! A device's medium while the device goes on: its size, what a removable one is changed for, and times at which nothing is
//! under way to it.
//!
//! A change goes through the queues' being quiet, so that no request meets half of each medium:
//!
//! ```text
//!   `params` rewritten ─▶ quiesce ─▶ quiet: an empty drive ─▶ open ─▶ quiesce (a new guest may be there) ─▶ quiet: the medium ─▶ resume
//! ```

use std::{io, sync::Arc};

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::Device;
use crate::{
    control::{
        disk::{self, Choice},
        inbox::Message,
        vbd::Event,
    },
    ctl::{
        desk::Ask,
        protocol::{Answer, Failure, FailureKind},
    },
    storage::Image,
};

/// What is to become of a device's medium.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// To be opened when the queues are quiet.
    wanted: Option<Choice>,
    /// To be served when the queues are quiet.
    ready: Option<Arc<Image>>,
    /// It is being opened.
    opening: bool,
    /// The last one could not be opened.
    failed: bool,
    /// An administrator keeps the queues quiet.
    pub(super) drained: bool,
    /// Who waits for the queues to be quiet.
    drains: Vec<Ask>,
    /// Who waits for the other medium.
    changes: Vec<Ask>,
}

impl Device {
    /// Looks whether the toolstack has put another medium into a removable disk.
    pub(super) fn compare_medium(&mut self) {
        let (Some(record), Some(choice)) = (&self.record, &self.choice) else { return };
        if !disk::is_removable(record) || self.image.is_none() {
            return;
        }
        let wanted = self.change.wanted.as_ref().unwrap_or(choice);
        match disk::choose(record, &self.id.device, &self.context.config) {
            Ok(other) if other.source != wanted.source => {
                info!(device = %self.id, medium = %other.source, "another medium");
                self.change.wanted = Some(other);
                self.quiesce();
            }
            Ok(_) => {}
            Err(error) => warn!(device = %self.id, %error, "no other medium"),
        }
    }

    /// Keeps the queues quiet until [`release`](Self::release).
    pub(super) fn drain(&mut self, ask: Ask) {
        self.change.drained = true;
        self.change.drains.push(ask);
        self.quiesce();
    }

    /// Ends that.
    pub(super) fn release(&mut self) {
        self.change.drained = false;
        self.go_on();
    }

    /// Puts an image's name where the toolstack has put the first one's, and waits for what comes of it.
    pub(super) async fn insert(&mut self, image: &str, ask: Ask) {
        match self.may_insert(image) {
            Err(failure) => return ask.answer(Err(failure)),
            // Nothing will change.
            Ok(true) => return ask.answer(Ok(Answer::Done(self.id.short()))),
            Ok(false) => self.change.changes.push(ask),
        }
        let scripted = self.record.as_ref().is_some_and(|record| record.physical_device_path.is_some());
        match self.publisher.medium(image, scripted).await {
            Err(error) => self.changed(Err(format!("XenStore: {error}"))),
            // What failed is named again: nothing tells of that.
            Ok(_) if self.change.failed => {
                self.change.wanted = self.choice.clone();
                self.quiesce();
            }
            Ok(_) => self.handle.look(),
        }
    }

    /// True if it is there already.
    fn may_insert(&self, image: &str) -> Result<bool, Failure> {
        let refused = |kind, text: &str| Err(Failure::new(kind, format!("disk {}: {text}", self.id.short())));
        let (Some(record), Some(choice)) = (&self.record, &self.choice) else {
            return refused(FailureKind::NotNow, "it has not been open yet");
        };
        if !disk::is_removable(record) {
            return refused(FailureKind::Unsupported, "it is not removable (a CD, or removable=1)");
        }
        if choice.settings.image.is_some() {
            return refused(FailureKind::Unsupported, "the configuration names its medium");
        }
        if !self.change.changes.is_empty() || self.image.is_none() {
            return refused(FailureKind::NotNow, "its medium is being changed, or closed");
        }
        match disk::source(image) {
            Ok(source) => Ok(source == choice.source && !self.is_changing() && !self.change.failed),
            Err(error) => refused(FailureKind::Malformed, &error.to_string()),
        }
    }

    fn is_changing(&self) -> bool {
        self.change.wanted.is_some() || self.change.ready.is_some() || self.change.opening
    }

    /// Waits for the queues to be quiet, if there are any.
    fn quiesce(&mut self) {
        match &mut self.connection {
            Some(connection) => connection.quiesce(),
            None => self.became_quiet(),
        }
    }

    /// Nothing is under way.
    pub(super) fn became_quiet(&mut self) {
        for ask in self.change.drains.drain(..) {
            ask.answer(Ok(Answer::Done(self.id.short())));
        }
        if let Some(image) = self.change.ready.take() {
            self.serve_medium(image);
            return self.changed(Ok(()));
        }
        if !self.change.opening
            && let Some(choice) = self.change.wanted.take()
        {
            // Lets the old medium go: the other may be the same file.
            self.serve_medium(Arc::new(Image::empty(&choice.options)));
            self.change.opening = true;
            let (inbox, images, id) = (self.handle.clone(), self.context.images.clone(), self.id.clone());
            self.choice = Some(choice.clone());
            spawn_blocking(move || inbox.send(Message::Exchanged(images.open(&choice, &id, false))));
            return;
        }
        self.go_on();
    }

    /// The queues are quiet, and serve this from now on.
    fn serve_medium(&mut self, image: Arc<Image>) {
        if let Some(connection) = &mut self.connection {
            connection.resume(Some(&image));
            if self.change.drained {
                connection.quiesce();
            }
        }
        self.image = Some(image);
    }

    /// A guest has connected while its queues were to be quiet.
    pub(super) fn quiesce_again(&mut self) {
        if self.change.drained || self.is_changing() {
            self.quiesce();
        }
    }

    /// The other medium is open, or why not.
    pub(super) fn exchanged(&mut self, outcome: Result<Arc<Image>, String>) {
        self.change.opening = false;
        match outcome {
            // The guest has gone, and the medium with it.
            _ if self.image.is_none() => self.changed(Err("the disk was closed meanwhile".into())),
            // Another one is wanted by now.
            _ if self.change.wanted.is_some() => self.quiesce(),
            Ok(image) => {
                self.change.ready = Some(image);
                self.quiesce();
            }
            Err(text) => self.changed(Err(text)),
        }
    }

    /// The queues go on; guest and toolstack are to be told.
    fn changed(&mut self, outcome: Result<(), String>) {
        self.change.failed = outcome.is_err();
        self.handle.send(Message::Medium(outcome));
        self.go_on();
    }

    /// Tells of a change: whoever asked for it when the guest has been told.
    pub(super) async fn tell_changed(&mut self, outcome: Result<(), String>) -> Option<Event> {
        let told = match &outcome {
            Ok(()) => self.absolve().await,
            Err(text) => self.blame(text).await,
        };
        if let Err(error) = told {
            error!(device = %self.id, %error, "XenStore");
        }
        let answer = outcome
            .map(|()| Answer::Done(self.id.short()))
            .map_err(|text| Failure::new(FailureKind::Failed, text));
        self.answers.extend(self.change.changes.drain(..).map(|ask| (ask, answer.clone())));
        Some(Event::Resized)
    }

    /// Has requests admitted again, unless they are to wait.
    fn go_on(&mut self) {
        if !self.change.drained
            && self.change.wanted.is_none()
            && let Some(connection) = &mut self.connection
            && connection.is_quiet()
        {
            connection.resume(None);
        }
    }

    /// Makes the medium larger or smaller. Blocks elsewhere.
    pub(super) fn resize(&self, bytes: u64, ask: Ask) {
        let Some(image) = self.image.clone() else {
            let text = format!("disk {}: it is not open", self.id.short());
            return ask.answer(Err(Failure::new(FailureKind::NotNow, text)));
        };
        let inbox = self.handle.clone();
        spawn_blocking(move || inbox.send(Message::Resized(image.resize(bytes), ask)));
    }

    /// It was tried.
    pub(super) fn resized(&mut self, outcome: io::Result<()>, ask: Ask) -> Option<Event> {
        let failure = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::Unsupported => FailureKind::Unsupported,
                io::ErrorKind::InvalidInput => FailureKind::Malformed,
                _ => FailureKind::Failed,
            };
            Failure::new(kind, format!("disk {}: cannot be resized: {error}", self.id.short()))
        };
        let answer = outcome.map(|()| Answer::Done(self.id.short())).map_err(failure);
        let event = if answer.is_ok() { self.measure() } else { None };
        self.answers.push((ask, answer));
        event
    }
}
