//! One device's task: feeds [`vbd`](super::vbd) with what it sees, and does what that says. Each device has its own, so
//! that none waits for another's image, drain or guest.

use std::{io, sync::Arc, time::Duration};

use blkif_proto::{
    Abi, Agreement,
    keys::{self, BackendFeatures, FrontendRecord, Hotplug, ToolstackBackend},
    xenbus::State,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::{debug, error, info, warn};
use xen_platform::DomId;

use super::{
    connection::{Connection, Terms},
    disk::{self, Choice},
    inbox::{DeviceHandle, Inbox, Message, inbox},
    publish::{self, Publisher},
    store::{DeviceId, Store, Watch},
    vbd::{Action, Event, Script, Seen, StartFailure, Vbd},
    workers::Workers,
};
use crate::{
    config::{Config, Strategy},
    storage::Image,
};

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
    image: Option<Arc<Image>>,
    offered: BackendFeatures,
    /// The frontend's `protocol` when we offered: what we offer must not change with what it writes afterwards.
    protocol: Option<Abi>,
    connection: Option<Connection>,
    wake: Option<Duration>,
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
            vbd: Vbd::new(Duration::from_secs(context.config.daemon.shutdown_s)),
            context,
            id,
            inbox,
            handle: handle.clone(),
            record: None,
            frontend: None,
            choice: None,
            image: None,
            offered: BackendFeatures::ORIGINAL,
            protocol: None,
            connection: None,
            wake: None,
            blamed: None,
        };
        (device, handle)
    }

    /// Lives until the device is gone. Errors: XenStore is lost.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            let event = match self.next().await {
                Some(message) => self.event(message).await?,
                None => Some(Event::Tick),
            };
            let Some(event) = event else { continue };
            if !self.step(event).await? {
                return Ok(());
            }
        }
    }

    /// The next message; none when it is time to wake.
    async fn next(&mut self) -> Option<Message> {
        let Some(wake) = self.wake else { return self.inbox.next().await };
        tokio::select! {
            message = self.inbox.next() => message,
            () = sleep_until(self.context.start + wake) => {
                self.wake = None;
                None
            }
        }
    }

    /// Takes an event and everything that follows from it at once. False when the device is to be forgotten.
    async fn step(&mut self, event: Event) -> io::Result<bool> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            debug!(device = %self.id, ?event);
            let now = self.context.start.elapsed();
            let (vbd, actions) = std::mem::replace(&mut self.vbd, Vbd::new(Duration::ZERO)).step(event, now);
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
                    self.forget().await?;
                    return Ok(false);
                }
                next = match self.perform(action).await {
                    Err(error) if super::store::is_lost(&error) => return Err(error),
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
        Ok(true)
    }

    async fn event(&mut self, message: Message) -> io::Result<Option<Event>> {
        match message {
            Message::Look => match self.look().await {
                Err(error) if super::store::is_lost(&error) => Err(error),
                Err(error) => {
                    error!(device = %self.id, %error, "XenStore");
                    Ok(None)
                }
                Ok(seen) => Ok(seen.map(Event::Seen)),
            },
            Message::Measure => Ok(self.measure()),
            Message::Report(report) => {
                let Some(connection) = &mut self.connection else { return Ok(None) };
                let (event, over) = connection.take(report);
                if over {
                    self.connection = None;
                }
                Ok(event)
            }
            Message::Opened(Ok(image)) => {
                self.image = Some(image);
                Ok(Some(Event::Opened(Ok(()))))
            }
            Message::Opened(Err(text)) => Ok(Some(Event::Opened(Err(text)))),
            Message::Shutdown => Ok(Some(Event::Shutdown)),
        }
    }

    /// Reads the nodes. `None` when the toolstack is not done with them.
    async fn look(&mut self) -> io::Result<Option<Seen>> {
        let store = self.context.store.clone();
        let Some(own) = store.read(&format!("{}/{}", self.dir, keys::STATE)).await? else {
            return Ok(Some(Seen {
                own: None,
                online: false,
                frontend: State::Unknown,
                script: Script::None,
                renewed: false,
            }));
        };
        let record = match store.record(&self.dir, |lookup| ToolstackBackend::parse(lookup)).await? {
            Ok(record) => record,
            Err(error) => {
                // Half made, or badly: if it stays so, this tells why nothing happens.
                self.blame(&error.to_string()).await?;
                return Ok(None);
            }
        };
        if self.vbd.is_new() && self.blamed.is_some() {
            self.absolve().await?;
        }
        let path = format!("{}/{}", record.frontend, keys::STATE);
        if self.frontend.as_ref().is_none_or(|(watched, _)| *watched != path) {
            let handle = self.handle.clone();
            let watch = store.watch(&path, move |_| handle.look()).await?;
            self.frontend = Some((path.clone(), watch));
        }
        let frontend = State::of_node(store.read(&path).await?);
        let scripted = record.script.is_some() && !self.context.config.daemon.ignore_hotplug;
        let script = match (&record.hotplug, scripted) {
            (_, false) => Script::None,
            (Hotplug::Waiting, true) => Script::Running,
            (Hotplug::Connected, true) => Script::Done,
            (Hotplug::Failed(_), true) => Script::Failed,
        };
        let online = record.online;
        let renewed = frontend == State::Initialised && self.is_renewed(&record, &path).await?;
        self.record = Some(record);
        // A rewritten `params` means a new size, or a new medium of which at least the size is new.
        self.handle.send(Message::Measure);
        Ok(Some(Seen { own: Some(State::of_node(Some(own))), online, frontend, script, renewed }))
    }

    /// True when a frontend at 3 names other rings than those it was connected with. Watches merge: a guest that crashes and is
    /// quickly back at 3 may look as if it had never left. At 4 it announces nothing, and its keys mean nothing: so its `state`,
    /// which is at `path`, must be 3 after the keys were read, as it was before.
    async fn is_renewed(&self, record: &ToolstackBackend, path: &str) -> io::Result<bool> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let offered = self.offered;
        let parse = |lookup: &mut dyn FnMut(&str) -> Option<String>| FrontendRecord::parse(lookup, &offered);
        // Keys that make no sense are not those of a guest that has just announced itself.
        let now = self.context.store.record(&record.frontend, parse).await?;
        let others = now.is_ok_and(|now| now != connection.frontend);
        Ok(others && State::of_node(self.context.store.read(path).await?) == State::Initialised)
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
                // No guest takes a disk of nothing; its requests fail without being told.
                Some(sectors) if sectors > 0 => self.publisher.size(sectors, self.vbd.state()).await?,
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
            Action::Wake(at) => {
                self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
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
        let inbox = self.handle.clone();
        // Opening may block for as long as a file server is away.
        spawn_blocking(move || {
            let opened = choice.open().map(Arc::new).map_err(|error| error.to_string());
            inbox.send(Message::Opened(opened));
        });
        None
    }

    /// Reads the frontend's keys, once each, and orders its rings to be served.
    async fn start(&mut self, used: bool) -> io::Result<Option<Event>> {
        let failed = |text| Ok(Some(Event::Started(Err(StartFailure { text, may_pass: false }))));
        let (Some(record), Some(image)) = (&self.record, &self.image) else {
            return failed("the image is not open".into());
        };
        // The image may have been opened since we offered, and tells what it can do.
        self.offered = self.features();
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
            dom: DomId(record.frontend_id),
            agreement,
            limits: agreement.limits(&publish::disk(image, record), offered.operations),
            strategy: self.strategy_for(image, record),
            cache_pages: self.context.config.offer.persistent_pages,
            used,
            image: Arc::clone(image),
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
        self.connection = Some(Connection::start(&self.context.workers, &terms, frontend, sink));
        Ok(None)
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

    fn strategy(&self) -> Strategy {
        let own = self.choice.as_ref().and_then(|choice| choice.settings.strategy);
        own.or(self.context.config.daemon.strategy).unwrap_or(Strategy::Copy)
    }

    async fn blame(&mut self, text: &str) -> io::Result<()> {
        if self.blamed.as_deref() == Some(text) {
            return Ok(());
        }
        error!(device = %self.id, "{text}");
        self.blamed = Some(text.to_owned());
        self.publisher.blame(text, self.is_unscripted()).await?;
        Ok(())
    }

    async fn absolve(&mut self) -> io::Result<()> {
        if self.blamed.take().is_some() {
            self.publisher.absolve(self.is_unscripted()).await?;
        }
        Ok(())
    }

    /// True when no script reports to the toolstack.
    fn is_unscripted(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.script.is_none())
    }

    async fn forget(&mut self) -> io::Result<()> {
        if self.record.is_some() {
            info!(device = %self.id, "gone");
        }
        if self.blamed.is_some() {
            self.publisher.forget_error().await?;
        }
        if self.context.config.daemon.remove_closed && self.vbd.state() == State::Closed {
            self.publisher.remove().await?;
        }
        Ok(())
    }
}
