//! A XenStore that refuses: stands between a client and the world's, and answers some writes itself.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Result;
use xen_platform::wire::{Decoder, Errno, Kind, Message, split};

/// The socket to connect to instead of the world's. Serves until the process ends.
#[derive(Clone, Debug)]
pub struct Middleman {
    socket: PathBuf,
    refused: Arc<Mutex<Option<(&'static str, Errno)>>>,
}

impl Middleman {
    /// Listens in `dir`, and passes everything on to the XenStore behind `server`.
    pub fn start(dir: &Path, server: PathBuf) -> Result<Self> {
        let middleman = Self { socket: dir.join("middleman"), refused: Arc::default() };
        let listener = UnixListener::bind(&middleman.socket)?;
        let served = middleman.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that cannot be served notices.
                drop(served.serve(client, &server));
            }
        });
        Ok(middleman)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on writes to nodes of this name are refused, or none are.
    pub fn refuse(&self, node: Option<(&'static str, Errno)>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }

    fn serve(&self, client: UnixStream, server: &Path) -> io::Result<()> {
        let server = UnixStream::connect(server)?;
        // Answers come from two threads, each a whole message at a time.
        let answers = Arc::new(Mutex::new(client.try_clone()?));
        let (from_server, refusals) = (server.try_clone()?, Arc::clone(&answers));
        thread::spawn(move || forward(from_server, |message| send(&answers, &message)));
        let us = self.clone();
        let to_server = Mutex::new(server);
        thread::spawn(move || {
            forward(client, |message| match us.refusal(&message) {
                Some(errno) => send(&refusals, &message.refusal(errno)),
                None => send(&to_server, &message),
            });
            let server = to_server.into_inner().unwrap_or_else(PoisonError::into_inner);
            server.shutdown(Shutdown::Both)
        });
        Ok(())
    }

    fn refusal(&self, message: &Message) -> Option<Errno> {
        let (node, errno) = (*self.refused.lock().unwrap_or_else(PoisonError::into_inner))?;
        // The value after the path has no NUL.
        let path = split(&message.payload).next()??;
        (message.kind == Kind::WRITE && path.rsplit('/').next() == Some(node)).then_some(errno)
    }
}

/// Passes every message from `from` on, until either end is gone.
fn forward(mut from: UnixStream, mut to: impl FnMut(Message) -> io::Result<()>) {
    let mut decoder = Decoder::default();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        decoder.push(&bytes[..count]);
        while let Ok(Some(message)) = decoder.next_message() {
            if to(message).is_err() {
                return;
            }
        }
    }
}

fn send(to: &Mutex<UnixStream>, message: &Message) -> io::Result<()> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    to.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
}
