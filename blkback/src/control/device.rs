//! One device's task: feeds [`vbd`](super::vbd) with what it sees, and does what that says. Each device has its own, so
//! that none waits for another's image, drain or guest.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc, time::Duration};

use blkif_proto::{
    Abi, Agreement, Operations, RecordError,
    keys::{self, BackendFeatures, FrontendRecord, ToolstackBackend},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};
use xen_platform::DomId;

mod answer;
mod look;
mod medium;

use super::{
    connection::{Connection, News, Terms},
    disk::{self, Choice},
    images::Images,
    inbox::{DeviceHandle, Inbox, Message, inbox},
    publish::{self, Publisher},
    store::{DeviceId, Store, Watch},
    throttles::Throttles,
    vbd::{Action, Event, StartFailure, Vbd},
    workers::Workers,
};
use crate::{
    config::{Config, Strategy},
    ctl::{
        desk::Ask,
        protocol::{Answer, Failure},
    },
    limit::DiskThrottle,
    sandbox::outside::Outside,
    storage::Image,
};
use medium::Change;

/// What all devices share.
pub struct Context {
    /// XenStore.
    pub store: Store,
    /// `/local/domain/<own>/backend`.
    pub base: String,
    /// The configuration.
    pub config: Config,
    /// The data plane.
    pub workers: Arc<Workers>,
    /// The images that are open.
    pub images: Images,
    /// What is not in the sandbox.
    pub outside: Arc<dyn Outside>,
    /// The limits in force.
    pub throttles: Throttles,
    /// Where what is under way is noted for a next daemon, if it is.
    pub logs: Option<PathBuf>,
    /// Where the time of [`Vbd::step`] starts.
    pub start: Instant,
}

/// A device's task.
pub struct Device {
    context: Arc<Context>,
    id: DeviceId,
    dir: String,
    publisher: Publisher,
    inbox: Inbox,
    handle: DeviceHandle,
    vbd: Vbd,
    record: Option<ToolstackBackend>,
    frontend: Option<(String, Watch)>,
    choice: Option<Choice>,
    /// What it may do in a second: once it is known, for as long as the device is there.
    throttle: Option<DiskThrottle>,
    image: Option<Arc<Image>>,
    offered: BackendFeatures,
    /// The frontend's `protocol` when we offered: what we offer must not change with what it writes afterwards.
    protocol: Option<Abi>,
    connection: Option<Connection>,
    change: Change,
    /// Answers to be given when what they tell of has been written.
    answers: Vec<(Ask, Result<Answer, Failure>)>,
    /// When to look again: each time counts, whatever comes before it.
    wakes: BTreeSet<Duration>,
    /// The text in our error nodes.
    blamed: Option<String>,
}

impl Device {
    /// A device's task, yet to be run, and its handle, with a look on its way.
    pub fn new(context: Arc<Context>, id: DeviceId) -> (Self, DeviceHandle) {
        let (inbox, handle) = inbox();
        handle.look();
        let device = Self {
            dir: id.dir(&context.base),
            publisher: Publisher::new(context.store.clone(), &context.base, &id),
            vbd: Vbd::new(
                Duration::from_secs(context.config.daemon.shutdown_s),
                context.config.is_driver_domain(),
            ),
            context,
            id,
            inbox,
            handle: handle.clone(),
            record: None,
            frontend: None,
            choice: None,
            throttle: None,
            image: None,
            offered: BackendFeatures::ORIGINAL,
            protocol: None,
            connection: None,
            change: Change::default(),
            answers: Vec::new(),
            wakes: BTreeSet::new(),
            blamed: None,
        };
        (device, handle)
    }

    /// Lives until the device is gone.
    pub async fn run(mut self) {
        loop {
            let event = match self.next().await {
                Some(message) => self.event(message).await,
                None => Some(Event::Tick),
            };
            let goes_on = match event {
                Some(event) => self.step(event).await,
                None => true,
            };
            self.answers.drain(..).for_each(|(ask, answer)| ask.answer(answer));
            if !goes_on {
                return;
            }
        }
    }

    /// The next message; none when it is time to wake.
    async fn next(&mut self) -> Option<Message> {
        let Some(&wake) = self.wakes.first() else { return self.inbox.next().await };
        tokio::select! {
            message = self.inbox.next() => message,
            () = sleep_until(self.context.start + wake) => {
                self.wakes.remove(&wake);
                None
            }
        }
    }

    /// Takes an event and everything that follows from it at once. False when the device is to be forgotten.
    async fn step(&mut self, event: Event) -> bool {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            debug!(device = %self.id, ?event);
            let now = self.context.start.elapsed();
            let (vbd, actions) =
                std::mem::replace(&mut self.vbd, Vbd::new(Duration::ZERO, false)).step(event, now);
            self.vbd = vbd;
            // A state says that what it stands for can be read: without the one there must not be the other.
            let mut unsaid = false;
            for action in actions {
                if unsaid && matches!(action, Action::SetState(_)) {
                    continue;
                }
                let announces = action == Action::Announce;
                let says = announces || action == Action::Offer;
                if action == Action::Forget {
                    self.forget().await;
                    return false;
                }
                next = match self.perform(action).await {
                    Err(error) => {
                        error!(device = %self.id, %error, "XenStore");
                        unsaid |= says;
                        // A guest whose disk cannot be announced would wait for ever.
                        announces.then(|| Event::Broken(format!("cannot announce the disk: {error}")))
                    }
                    Ok(event) => event,
                }
                .or(next);
            }
        }
        true
    }

    async fn event(&mut self, message: Message) -> Option<Event> {
        match message {
            Message::Look => match self.look().await {
                Err(error) => {
                    error!(device = %self.id, %error, "XenStore");
                    None
                }
                Ok(seen) => seen.map(Event::Seen),
            },
            Message::Measure => self.measure(),
            Message::Report(report) => {
                match self.connection.as_mut()?.take(report)? {
                    News::Quiet => {
                        self.became_quiet();
                        None
                    }
                    News::Event(event) => {
                        if event == Event::Started(Ok(())) {
                            self.quiesce_again();
                        }
                        Some(event)
                    }
                    News::Over(event) => {
                        self.connection = None;
                        // Whatever waited for that.
                        self.became_quiet();
                        Some(event)
                    }
                }
            }
            Message::Exchanged(outcome) => {
                self.exchanged(outcome);
                None
            }
            Message::Medium(outcome) => self.tell_changed(outcome).await,
            Message::Resized(outcome, ask) => self.resized(outcome, ask),
            Message::Ask(ask) => {
                self.answer(ask).await;
                None
            }
            Message::Opened(Ok(image)) => {
                self.image = Some(image);
                Some(Event::Opened(Ok(())))
            }
            Message::Opened(Err(text)) => Some(Event::Opened(Err(text))),
            Message::Shutdown => Some(Event::Shutdown),
        }
    }

    fn measure(&mut self) -> Option<Event> {
        let image = self.image.as_ref()?;
        match image.refresh() {
            Ok(false) => None,
            Ok(true) => {
                info!(device = %self.id, sectors = image.sectors(), "the image has another size");
                Some(Event::Resized)
            }
            Err(error) => {
                warn!(device = %self.id, image = %image.name().display(), %error, "cannot measure the image");
                None
            }
        }
    }

    /// Does what an action says. The event, if it has an answer at once.
    async fn perform(&mut self, action: Action) -> io::Result<Option<Event>> {
        let there = match action {
            Action::Open => return Ok(self.open()),
            Action::Start { used } => return self.start(used).await,
            Action::Shut => {
                self.image = None;
                true
            }
            Action::Drain => {
                if let Some(connection) = &self.connection {
                    connection.drain();
                }
                true
            }
            Action::Offer => {
                self.protocol = self.protocol().await?;
                self.offered = self.features();
                self.publisher.offer(&self.offered, None).await?
            }
            Action::Announce => {
                let disk = self.image.as_deref().zip(self.record.as_ref());
                let disk = disk.map(|(image, record)| publish::disk(image, record));
                self.publisher.offer(&self.offered, disk.as_ref()).await?
            }
            Action::AnnounceSize => match self.image.as_ref().map(|image| image.sectors()) {
                // No guest takes a disk of nothing, unless it knows of media; its requests fail without being told.
                Some(sectors) if sectors > 0 || self.record.as_ref().is_some_and(disk::is_removable) => {
                    self.publisher.size(sectors, self.vbd.state()).await?
                }
                _ => true,
            },
            Action::SetState(state) => {
                info!(device = %self.id, %state);
                self.publisher.state(state).await?
            }
            Action::Report(text) => {
                self.blame(&text).await?;
                true
            }
            Action::Absolve => {
                self.absolve().await?;
                true
            }
            Action::Approve => self.publisher.approve().await?,
            Action::Remove => {
                self.publisher.remove().await?;
                true
            }
            Action::Wake(at) => {
                self.wakes.insert(at);
                true
            }
            Action::Forget => true,
        };
        if !there {
            self.handle.look();
        }
        Ok(None)
    }

    fn open(&mut self) -> Option<Event> {
        let record = self.record.as_ref()?;
        let choice = match disk::choose(record, &self.id.device, &self.context.config) {
            Ok(choice) => choice,
            Err(error) => return Some(Event::Opened(Err(error.to_string()))),
        };
        self.choice = Some(choice.clone());
        let throttles = &self.context.throttles;
        self.throttle.get_or_insert_with(|| throttles.adopt(&self.id, &choice.settings));
        let (inbox, images, id) = (self.handle.clone(), self.context.images.clone(), self.id.clone());
        let connected = self.vbd.is_inherited();
        // Opening may block for as long as a file server is away.
        spawn_blocking(move || inbox.send(Message::Opened(images.open(&choice, &id, connected))));
        None
    }

    /// Reads the frontend's keys, once each, and orders its rings to be served.
    async fn start(&mut self, used: bool) -> io::Result<Option<Event>> {
        let failed = |text| Ok(Some(Event::Started(Err(StartFailure { text, may_pass: false }))));
        let (Some(record), Some(image), Some(throttle)) = (&self.record, &self.image, &self.throttle) else {
            return failed("the image is not open".into());
        };
        self.offered = if used {
            match self.offered_before().await? {
                Ok(offered) => offered,
                Err(error) => return failed(format!("{}: {error}", self.dir)),
            }
        } else {
            // The image may have been opened since we offered, and tells what it can do.
            self.features()
        };
        let offered = self.offered;
        let parse = |lookup: &mut dyn FnMut(&str) -> Option<String>| FrontendRecord::parse(lookup, &offered);
        let frontend = match self.context.store.record(&record.frontend, parse).await? {
            Ok(frontend) => frontend,
            Err(error) => return failed(format!("{}: {error}", record.frontend)),
        };
        let agreement = Agreement::between(&offered.capacity(), &frontend.capacity(), frontend.abi);
        for reduction in agreement.reductions() {
            info!(device = %self.id, key = reduction.key, offered = reduction.offered, used = reduction.used, "reduced");
        }
        let terms = Terms {
            device: self.id.clone(),
            logs: self.context.logs.clone(),
            dom: DomId(record.frontend_id),
            agreement,
            limits: agreement.limits(&publish::disk(image, record), offered.operations),
            strategy: self.strategy_for(image, record),
            cache_pages: self.context.config.offer.persistent_pages,
            used,
            recorder: self.context.store.recorder().cloned(),
            image: Arc::clone(image),
            throttle: throttle.clone(),
        };
        info!(
            device = %self.id,
            image = %image.name().display(),
            abi = agreement.abi.as_protocol(),
            queues = agreement.queues,
            ring_pages = agreement.ring_pages,
            segments = agreement.max_segments,
            mode = agreement.mode.as_str(),
            persistent = agreement.persistent,
            strategy = ?terms.strategy,
            "connecting",
        );
        let handle = self.handle.clone();
        let sink = Box::new(move |report| handle.send(Message::Report(report)));
        self.connection = Some(Connection::start(&self.context.workers, terms, frontend, sink));
        Ok(None)
    }

    /// What an earlier daemon has offered: a guest that is connected goes by that, whatever this one would offer.
    async fn offered_before(&self) -> io::Result<Result<BackendFeatures, RecordError>> {
        let parse = |lookup: &mut dyn FnMut(&str) -> Option<String>| BackendFeatures::parse(lookup);
        let found = self.context.store.record(&self.dir, parse).await?;
        // What depends on the image may not have been told yet.
        let discard = self.features().operations.discard;
        Ok(found.map(|offered| {
            let operations =
                Operations { discard: offered.operations.discard.or(discard), ..offered.operations };
            BackendFeatures { operations, ..offered }
        }))
    }

    /// The layout that the frontend, or the toolstack for it, has written down.
    async fn protocol(&self) -> io::Result<Option<Abi>> {
        let Some(record) = &self.record else { return Ok(None) };
        let path = format!("{}/{}", record.frontend, keys::PROTOCOL);
        Ok(self.context.store.read(&path).await?.and_then(|name| Abi::from_protocol(&name)))
    }

    fn features(&self) -> BackendFeatures {
        let config = &self.context.config;
        let settings = match (&self.choice, &self.record) {
            (Some(choice), _) => choice.settings.clone(),
            (None, Some(record)) => config.disk(record.frontend_id, &self.id.device, record.dev.as_deref()),
            (None, None) => config.disk.clone(),
        };
        publish::features(&config.offer, &settings, self.strategy(), self.image.as_deref(), self.protocol)
    }

    /// Storage without a page cache in front may still send from a guest's page when the write is complete, if it is behind a
    /// network: the guest's own pages are for storage of which the toolstack says that it is safe.
    fn strategy_for(&self, image: &Image, record: &ToolstackBackend) -> Strategy {
        match self.strategy() {
            Strategy::Direct if image.geometry().direct_io && !record.direct_io_safe => {
                info!(device = %self.id, "copying: the page cache is bypassed and direct-io-safe is not set");
                Strategy::Copy
            }
            strategy => strategy,
        }
    }

    /// What is configured, or else what suits the image: the page cache reads and writes pages that stay mapped as its own, while
    /// direct I/O would need a copy between.
    fn strategy(&self) -> Strategy {
        let own = self.choice.as_ref().and_then(|choice| choice.settings.strategy);
        let direct_io = match (&self.image, &self.choice) {
            (Some(image), _) => image.geometry().direct_io,
            (None, Some(choice)) => choice.options.direct_io,
            (None, None) => self.context.config.disk.direct_io.unwrap_or(false),
        };
        let suited = if direct_io { Strategy::Copy } else { Strategy::Persistent };
        own.or(self.context.config.daemon.strategy).unwrap_or(suited)
    }

    async fn blame(&mut self, text: &str) -> io::Result<()> {
        if self.blamed.as_deref() == Some(text) {
            return Ok(());
        }
        error!(device = %self.id, "{text}");
        self.blamed = Some(text.to_owned());
        self.publisher.blame(text, self.vbd.is_unscripted()).await?;
        Ok(())
    }

    async fn absolve(&mut self) -> io::Result<()> {
        if self.blamed.take().is_some() {
            self.publisher.absolve(self.vbd.is_unscripted()).await?;
        }
        Ok(())
    }

    async fn forget(&mut self) {
        if self.record.is_some() {
            info!(device = %self.id, "gone");
        }
        if self.blamed.is_some()
            && let Err(error) = self.publisher.forget_error().await
        {
            error!(device = %self.id, %error, "XenStore");
        }
    }
}
