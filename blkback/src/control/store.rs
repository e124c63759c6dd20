//! XenStore as the control plane uses it: `xenstore-rs` with its edges covered.
//!
//! Of that crate (0.8): a watch that is not drained holds up the whole connection, so each has a task that does nothing else;
//! there are no transactions, so whoever writes several nodes writes `state` last, and looks afterwards whether the toolstack
//! deleted the device meanwhile ([`Store::write_all`]).
//!
//! A server that is silent is waited for: one that is slow answers in the end, and one that is dead has no successor before
//! the host is restarted. Guests' disks are served meanwhile as ever. So calls have no time-out; [`Store::is_silent`] tells.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, pending, poll_fn},
    io::{self, ErrorKind},
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use blkif_observe::recording::{End, Recorder};
use blkif_proto::{RecordError, keys};
use futures_core::Stream as _;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};
use xenstore_rs::{AsyncWatch, AsyncXs, tokio::XsTokio};

use super::socket;

/// Nothing from the server for so long, neither an answer nor an event, is worth a line. A call alone may take longer: guests
/// can keep a server busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often nodes are written before an error of the server is believed, and the pause between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(20);
/// `xenstore-rs` ends the connection over a longer message (path, NUL, value), and so would xenstored.
const MESSAGE_MAX: usize = 4080;

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    xs: XsTokio,
    life: Arc<Life>,
    recorder: Option<Arc<Recorder>>,
}

/// When the server was last heard.
#[derive(Debug)]
struct Life {
    start: Instant,
    /// Milliseconds after `start`.
    heard: AtomicU64,
    silent: AtomicBool,
}

impl Life {
    fn heard(&self) {
        self.heard.store(self.now(), Relaxed);
        if self.silent.swap(false, Relaxed) {
            info!("XenStore answers again");
        }
    }

    fn missed(&self) {
        if !self.silent.swap(true, Relaxed) {
            error!("XenStore does not answer: connected disks are served on, none can come, go or close");
        }
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.heard.load(Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A watch; ends when dropped.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Store {
    /// Connects to the xenstored behind `path`, or to this system's.
    pub async fn connect(path: Option<&Path>) -> io::Result<Self> {
        let xs = socket::connect(path).await?;
        let life = Life { start: Instant::now(), heard: AtomicU64::new(0), silent: AtomicBool::new(false) };
        Ok(Self { xs, life: Arc::new(life), recorder: None })
    }

    /// Begins to record what guests and this daemon do, in a new file in `folder`.
    pub fn start_recording(&mut self, folder: &Path) -> io::Result<()> {
        let program = concat!("blkback ", env!("CARGO_PKG_VERSION"));
        self.recorder = Some(Recorder::create(folder, End::Backend, program)?);
        Ok(())
    }

    /// The recording, if there is one.
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    /// True when the server has said nothing for long. Calls wait until it does.
    pub fn is_silent(&self) -> bool {
        self.life.silent.load(Relaxed)
    }

    /// Asks again and again whether the server is still there; never ends.
    pub async fn listen(&self) {
        loop {
            sleep(HEARTBEAT).await;
            // Whatever it says.
            _ = self.read("/").await;
        }
    }

    /// A node's value; `None` when there is no such node. A value that is no text reads as one that nothing accepts.
    pub async fn read(&self, path: &str) -> io::Result<Option<String>> {
        let value = match self.limited(self.xs.read(path)).await {
            Ok(value) => Some(value.into()),
            Err(error) if is_missing(&error) => None,
            Err(error) if error.kind() == ErrorKind::InvalidData => Some('\u{FFFD}'.into()),
            Err(error) => return Err(error),
        };
        self.note(path, value.as_deref());
        Ok(value)
    }

    /// The names of a node's children; none when there is no such node.
    pub async fn list(&self, path: &str) -> io::Result<Vec<String>> {
        match self.limited(self.xs.directory(path)).await {
            Ok(names) => {
                Ok(names.into_iter().map(Into::into).filter(|name: &String| !name.is_empty()).collect())
            }
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes a node, making its parents.
    pub async fn write(&self, path: &str, value: &str) -> io::Result<()> {
        if path.len() + 1 + value.len() > MESSAGE_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("{path}: value too long")));
        }
        // Before the guest can see it and act.
        self.note(path, Some(value));
        self.limited(self.xs.write(path, value)).await
    }

    /// Removes a node and all below it; a missing one is fine.
    pub async fn remove(&self, path: &str) -> io::Result<()> {
        self.note(path, None);
        match self.limited(self.xs.rm(path)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes nodes of the device directory `dir` in order, if the toolstack has not deleted it; false if it has. What a
    /// deletion in between leaves of our writes is removed again.
    pub async fn write_all(&self, dir: &str, nodes: &[(String, String)]) -> io::Result<bool> {
        for _ in 1..TRIES {
            match self.try_write_all(dir, nodes).await {
                Err(error) if error.kind() != ErrorKind::InvalidInput => {
                    warn!(dir, %error, "XenStore does not take what we write: trying again");
                    sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
        self.try_write_all(dir, nodes).await
    }

    async fn try_write_all(&self, dir: &str, nodes: &[(String, String)]) -> io::Result<bool> {
        let mark = format!("{dir}/{}", keys::FRONTEND);
        if self.read(&mark).await?.is_none() {
            return Ok(false);
        }
        for (key, value) in nodes {
            self.write(&format!("{dir}/{key}"), value).await?;
        }
        if self.read(&mark).await?.is_none() {
            self.remove(dir).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads a record: each key that `parse` asks for is read once, below `dir`.
    pub async fn record<T>(
        &self,
        dir: &str,
        mut parse: impl FnMut(&mut dyn FnMut(&str) -> Option<String>) -> Result<T, RecordError>,
    ) -> io::Result<Result<T, RecordError>> {
        let mut known: HashMap<String, Option<String>> = HashMap::new();
        loop {
            let mut wanted = Vec::new();
            let parsed = parse(&mut |key| match known.get(key) {
                Some(value) => value.clone(),
                None => {
                    wanted.push(key.to_owned());
                    None
                }
            });
            if wanted.is_empty() {
                return Ok(parsed);
            }
            for key in wanted {
                let value = self.read(&format!("{dir}/{key}")).await?;
                known.insert(key, value);
            }
        }
    }

    /// Calls `event` with the path of every change at or below `path`, and once at first. It must not wait for anything.
    pub async fn watch(&self, path: &str, mut event: impl FnMut(&str) + Send + 'static) -> io::Result<Watch> {
        let stream = self.limited(self.xs.watch(path)).await?;
        let (name, life) = (path.to_owned(), Arc::clone(&self.life));
        Ok(Watch(tokio::spawn(async move {
            let mut stream = pin!(stream);
            while let Some(changed) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
                life.heard();
                event(&changed);
            }
            warn!(path = name, "XenStore ended a watch");
        })))
    }

    fn note(&self, path: &str, value: Option<&str>) {
        if let Some(recorder) = &self.recorder {
            recorder.node(path, value);
        }
    }

    /// Waits for a call, however long.
    async fn limited<T>(&self, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut call = pin!(call);
        loop {
            match timeout(PATIENCE, call.as_mut()).await {
                Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => {
                    self.life.missed();
                    pending().await
                }
                Ok(result) => {
                    self.life.heard();
                    return result;
                }
                Err(_) if self.life.silence() < PATIENCE => {}
                Err(_) => self.life.missed(),
            }
        }
    }
}

/// True when there is no such node, or none that we may see: a driver domain is not told which.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

/// Where a device is in XenStore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// The directory below `backend/`.
    pub kind: String,
    /// The guest.
    pub domain: String,
    /// The device's number.
    pub device: String,
}

impl DeviceId {
    /// The device that `path` lies in or is, below `base` (`/local/domain/N/backend`); `None` for anything above devices.
    pub fn of_path(base: &str, path: &str) -> Option<Self> {
        let mut names = path.strip_prefix(base)?.strip_prefix('/')?.split('/').map(str::to_owned);
        let (kind, domain, device) = (names.next()?, names.next()?, names.next()?);
        let number = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        (number(&domain) && number(&device)).then_some(Self { kind, domain, device })
    }

    /// How the names of its files begin.
    pub fn file_prefix(&self) -> String {
        format!("{}-{}-{}-", self.kind, self.domain, self.device)
    }

    /// For people: the guest's number and the disk's.
    pub fn short(&self) -> String {
        format!("{}/{}", self.domain, self.device)
    }

    /// The device's directory.
    pub fn dir(&self, base: &str) -> String {
        format!("{base}/{self}")
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.domain, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_three_names_below_the_base() {
        let base = "/local/domain/0/backend";
        let id = |path: &str| DeviceId::of_path(base, &format!("{base}{path}")).map(|id| id.to_string());
        assert_eq!(id("/vbd/1/51712"), Some("vbd/1/51712".into()));
        assert_eq!(id("/vbd/1/51712/state"), Some("vbd/1/51712".into()));
        assert_eq!(id("/vbd/1"), None);
        assert_eq!(id("/vbd"), None);
        assert_eq!(id(""), None);
        assert_eq!(id("/vbd/x/51712"), None);
        assert_eq!(id("/vbd//51712"), None);
        assert_eq!(DeviceId::of_path(base, "/local/domain/1/backend/vbd/1/2"), None);
    }
}
