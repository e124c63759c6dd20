//! The socket, with clients that behave and clients that do not.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream as StdStream},
    thread,
};

use super::*;
use crate::ctl::{client::Client, protocol::Disk};

/// A desk in a folder of its own, whose questions are answered by `answer`.
fn desk(answer: impl Fn(&Command) -> Result<Answer, Failure> + Send + 'static) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(&folder.path().join("s"), &ControlConfig::default()).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (send, mut asks) = mpsc::channel(1);
            tokio::spawn(desk.serve(send));
            while let Some(ask) = asks.recv().await {
                let answered = answer(&ask.command);
                ask.answer(answered);
            }
        });
    });
    folder
}

fn nothing(_: &Command) -> Result<Answer, Failure> {
    Ok(Answer::Disks(Vec::<Disk>::new()))
}

fn say(folder: &tempfile::TempDir, bytes: &[u8]) -> String {
    let mut stream = StdStream::connect(folder.path().join("s")).unwrap();
    // It may have closed its end before all was written.
    _ = stream.write_all(bytes);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn questions_and_answers() {
    let folder = desk(|command| match command {
        Command::List => nothing(command),
        _ => Err(Failure::new(FailureKind::NoSuchDisk, "none")),
    });
    let mut client = Client::connect(&folder.path().join("s")).unwrap();
    for _ in 0..2 {
        assert_eq!(client.ask(Command::List).unwrap(), Answer::Disks(Vec::new()));
        let refused = client.ask(Command::Drain { disk: "1/xvda".parse().unwrap() });
        assert!(refused.is_err_and(|error| error.to_string() == "none"));
    }
}

#[test]
fn what_makes_no_sense_is_told_so() {
    let folder = desk(nothing);
    for (line, kind) in [
        (&b"\n"[..], "malformed"),
        (b"{\n", "malformed"),
        (b"[]\n", "malformed"),
        (b"{\"version\":1}\n", "malformed"),
        (b"{\"version\":1,\"command\":\"dance\"}\n", "malformed"),
        (b"{\"version\":1,\"command\":\"show\",\"disk\":\"../x\"}\n", "malformed"),
        (b"{\"version\":1,\"command\":\"resize\",\"disk\":\"1/a\",\"bytes\":-1}\n", "malformed"),
        (b"{\"command\":\"list\"}\n", "malformed"),
        (b"{\"version\":2,\"command\":\"levitate\"}\n", "version"),
        (b"\xff\xfe\n", "malformed"),
    ] {
        let answer = say(&folder, line);
        assert!(answer.contains(&format!("\"kind\":\"{kind}\"")), "{}: {answer}", line.escape_ascii());
    }
    let endless = vec![b'['; 3 * LINE];
    assert!(say(&folder, &endless).contains("malformed"));
    // And it is still there.
    assert!(say(&folder, b"{\"version\":1,\"command\":\"list\"}\n").contains("\"ok\""));
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let folder = desk(nothing);
    let _silent: Vec<_> =
        (0..CONNECTIONS - 1).map(|_| StdStream::connect(folder.path().join("s")).unwrap()).collect();
    assert!(say(&folder, b"{\"version\":1,\"command\":\"list\"}\n").contains("\"ok\""));
}

#[test]
fn the_socket_is_for_its_owner_and_replaces_a_dead_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let open = |config: &ControlConfig| Desk::open(&path, config);
    drop(open(&ControlConfig::default()).unwrap());
    let again = open(&ControlConfig::default()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    drop(again);
    let group = Some("nobody-has-this-group".to_owned());
    let refused = open(&ControlConfig { group, ..ControlConfig::default() }).unwrap_err();
    assert!(refused.to_string().contains("nobody-has-this-group"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    open(&ControlConfig::default()).unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn others_may_look_and_not_touch() {
    let look = b"{\"version\":1,\"command\":\"list\"}\n";
    let touch = b"{\"version\":1,\"command\":\"drain\",\"disk\":\"1/a\"}\n";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = ours.peer_cred().unwrap();
        assert!(understand(touch, &peer, &[peer.uid()]).is_ok());
        assert!(understand(look, &peer, &[peer.uid() + 1]).is_ok());
        let refused = understand(touch, &peer, &[peer.uid() + 1]).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Forbidden);
    });
}
