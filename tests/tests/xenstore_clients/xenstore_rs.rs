//! The `xenstore-rs` crate, blocking and on tokio. It takes the socket's path from the environment only, and changing one's
//! own is unsafe, so each test runs itself again in a child that has it.

use core::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Duration,
};
use std::io::ErrorKind;

use ::xenstore_rs::{AsyncWatch, AsyncXs, Xs, tokio::XsTokio, unix::XsUnix};
use futures_core::Stream;

use crate::*;

const CHILD: &str = "BLKIF_XENSTORE_CHILD";

/// Runs the test `name` again with the socket in its environment, unless this is that run already.
fn in_child(name: &str, body: impl FnOnce()) {
    if std::env::var(CHILD).is_ok() {
        return body();
    }
    let served = Served::new();
    let test = std::env::current_exe().unwrap();
    let output = served
        .command(test.to_str().unwrap())
        .args(["--exact", &format!("xenstore_clients::xenstore_rs::{name}"), "--nocapture"])
        .env(CHILD, "1")
        .output();
    assert!(printed(&output.unwrap()).contains("1 passed"), "the child ran no test");
}

fn on_tokio(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time") });
}

async fn next(stream: &mut (impl Stream<Item = Box<str>> + Unpin)) -> String {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await.expect("the watch goes on").into()
}

#[test]
fn blocking() {
    in_child("blocking", || {
        let xs = XsUnix::new().unwrap();
        xs.write("/rs/a/b", "1").unwrap();
        xs.write("/rs/empty", "").unwrap();
        assert_eq!(&*xs.read("/rs/a/b").unwrap(), "1");
        assert_eq!(&*xs.read("/rs/empty").unwrap(), "");
        assert_eq!(xs.directory("/rs").unwrap(), ["a".into(), "empty".into()]);
        assert!(xs.directory("/rs/empty").unwrap().is_empty());
        assert_eq!(xs.read("/rs/nope").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(xs.read("/rs/").unwrap_err().kind(), ErrorKind::InvalidInput);
        xs.rm("/rs").unwrap();
        assert_eq!(xs.directory("/rs").unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn requests_on_tokio() {
    in_child("requests_on_tokio", || {
        on_tokio(async {
            let xs = XsTokio::new().await.unwrap();
            let tasks: Vec<_> = (0..100)
                .map(|task| {
                    let xs = xs.clone();
                    tokio::spawn(async move {
                        let path = format!("/rs/{task}");
                        xs.write(&path, &task.to_string()).await.unwrap();
                        assert_eq!(&*xs.read(&path).await.unwrap(), task.to_string());
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(xs.directory("/rs").await.unwrap().len(), 100);
            xs.rm("/rs").await.unwrap();
            assert_eq!(xs.read("/rs/1").await.unwrap_err().kind(), ErrorKind::NotFound);
        });
    });
}

#[test]
fn watches_on_tokio() {
    in_child("watches_on_tokio", || {
        on_tokio(async {
            let xs = XsTokio::new().await.unwrap();
            let mut backends = xs.watch("/local/domain/0/backend/vbd").await.unwrap();
            let mut domains = xs.watch("@introduceDomain").await.unwrap();
            assert_eq!(next(&mut backends).await, "/local/domain/0/backend/vbd", "fires when set");
            assert_eq!(next(&mut domains).await, "@introduceDomain");
            xs.write("/local/domain/0/backend/vbd/1/51712/state", "1").await.unwrap();
            assert_eq!(next(&mut backends).await, "/local/domain/0/backend/vbd/1/51712/state");
            xs.rm("/local/domain/0/backend").await.unwrap();
            assert_eq!(next(&mut backends).await, "/local/domain/0/backend/vbd");
            drop(backends);
            // The connection is in order after the watch ended by itself.
            xs.write("/local/domain/0/backend/vbd", "").await.unwrap();
            assert_eq!(&*xs.read("/local/domain/0/backend/vbd").await.unwrap(), "");
        });
    });
}

#[test]
fn a_flood_on_tokio_ends_with_the_latest() {
    in_child("a_flood_on_tokio_ends_with_the_latest", || {
        on_tokio(async {
            let (xs, writer) = (XsTokio::new().await.unwrap(), XsTokio::new().await.unwrap());
            let mut watch = xs.watch("/flood").await.unwrap();
            let flood = tokio::spawn(async move {
                for turn in 0..5000 {
                    writer.write(&format!("/flood/{}", turn % 100), &turn.to_string()).await.unwrap();
                }
                writer.write("/flood/last", "").await.unwrap();
            });
            // Not drained until all is written; then everything is told, if only by the watched path.
            flood.await.unwrap();
            assert_eq!(next(&mut watch).await, "/flood", "the first event");
            while !matches!(next(&mut watch).await.as_str(), "/flood/last" | "/flood") {}
            assert_eq!(&*xs.read("/flood/99").await.unwrap(), "4999");
        });
    });
}
