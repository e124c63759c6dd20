//! The HTTP server: one answer a connection, a bounded number of them, each for a bounded time.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{debug, error, warn};

use super::{Roll, text};
use crate::{
    config::{Listen, MetricsConfig},
    ctl::desk,
};

/// Connections at a time; others wait.
const CONNECTIONS: usize = 8;
/// How long a client may take to ask.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take in all.
const DONE_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of a request's head at most.
const HEAD: usize = 8 << 10;
/// What the text is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A place where metrics can be had, to which nobody listens yet.
#[derive(Debug)]
pub struct Endpoint(Listener);

#[derive(Debug)]
enum Listener {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener),
}

impl Endpoint {
    /// The configured one, if there is one. Call before the sandbox closes. Errors: the system's, with the place in it.
    pub fn open(config: &MetricsConfig) -> io::Result<Option<Self>> {
        let opened = match &config.listen {
            None => return Ok(None),
            Some(Listen::Unix(path)) => unix(path, config.group.as_deref()).map(Listener::Unix),
            Some(Listen::Tcp(address)) => tcp(*address).map(Listener::Tcp),
        };
        let named = |error: io::Error| {
            let place = config.listen.as_ref().map(ToString::to_string).unwrap_or_default();
            io::Error::new(error.kind(), format!("{place}: {error}"))
        };
        opened.map(|listener| Some(Self(listener))).map_err(named)
    }

    /// Where it is, if that is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Listener::Unix(_) => None,
            Listener::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Tells whoever asks, for ever. Errors: the socket cannot be used by this runtime.
    pub async fn serve(self, roll: Arc<Roll>) -> io::Result<Infallible> {
        match self.0 {
            Listener::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                let accept = async || listener.accept().await.map(|(stream, _)| stream);
                Ok(attend_all(accept, roll).await)
            }
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                let accept = async || listener.accept().await.map(|(stream, _)| stream);
                Ok(attend_all(accept, roll).await)
            }
        }
    }
}

fn unix(path: &Path, group: Option<&str>) -> io::Result<std::os::unix::net::UnixListener> {
    desk::listen(path, group)
}

fn tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn attend_all<C, F>(mut accept: impl FnMut() -> F, roll: Arc<Roll>) -> Infallible
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<C>>,
{
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&free).acquire_owned().await;
        match accept().await {
            Ok(stream) => {
                let roll = Arc::clone(&roll);
                tokio::spawn(async move {
                    attend(stream, roll).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: that may pass.
                error!(%error, "metrics");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Answers one client.
async fn attend(stream: impl AsyncRead + AsyncWrite + Unpin, roll: Arc<Roll>) {
    let service = service_fn(move |request| {
        let roll = Arc::clone(&roll);
        async move { Ok::<_, Infallible>(answer(&request, roll).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASK_WITHIN)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(DONE_WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "metrics: a client"),
        Err(_) => debug!("metrics: a client took too long"),
    }
}

async fn answer(request: &Request<Incoming>, roll: Arc<Roll>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET is served here\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if !matches!(request.uri().path(), "/" | "/metrics") {
        return plain(StatusCode::NOT_FOUND, "/metrics is served here\n");
    }
    // A host of many disks has much to tell, and the control plane something else to do.
    match spawn_blocking(move || text(&roll)).await {
        Ok(Ok(text)) => {
            let mut told = Response::new(Full::new(Bytes::from(text)));
            told.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(OPEN_METRICS));
            told
        }
        other => {
            warn!(?other, "metrics");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "it did not work; the daemon's log says why\n")
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
