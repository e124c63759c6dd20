//! Servers that break, hang and lie while a guest works.

use std::thread;

use tests::nbd::{Fake, Manners, Server, Spoil};

use super::*;

#[test]
fn what_a_server_refuses_is_an_error_of_the_guest() {
    let mut bench = Bench::start();
    let file = bench.file("a.img", 8);
    let other = bench.attach(file.to_str().unwrap());
    let errors = ["--filter=error", "memory", "8M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"];
    let server = Server::nbdkit(bench.dir(), "errors", &errors).unwrap();
    let vbd = bench.attach(&server.uri(""));
    for at in [0, 7] {
        let refused = bench.write(&vbd, at);
        assert!(!refused.status.success() && words(&refused).contains("I/O error"), "{}", words(&refused));
        assert!(bench.read(&vbd, at).status.success());
    }
    bench.must_log("No space left on device");
    bench.must_write(&other, 1);
    bench.must_read(&other, 1);
    bench.stop();
}

/// `nbdkit` hides what it can by trying again.
#[test]
fn what_a_server_tries_again_goes_unnoticed() {
    let mut bench = Bench::start();
    let stats = bench.dir().join("stats");
    let statsfile = format!("statsfile={}", stats.display());
    let arguments = [
        "--filter=stats",
        "--filter=retry-request",
        "--filter=error",
        "memory",
        "8M",
        "error-rate=3%",
        "retry-request-retries=50",
        "retry-request-delay=1",
        &statsfile,
    ];
    let mut server = Server::nbdkit(bench.dir(), "retry", &arguments).unwrap();
    let vbd = bench.attach(&server.uri(""));
    for at in 0..8 {
        bench.must_write(&vbd, at);
        bench.must_read(&vbd, at);
    }
    bench.world.toolstack().detach(&vbd).unwrap();
    server.process().unwrap().stop().unwrap();
    let told = fs::read_to_string(stats).unwrap();
    let ops = |what: &str| told.lines().find(|line| line.starts_with(what)).unwrap_or_default().to_owned();
    // One request of a MiB is one of the guest's, which has 64 pages or so, not one for each page.
    assert!(ops("write:").contains("8.00 MiB") && ops("read:").contains("8.00 MiB"), "{told}");
    assert!(ops("flush:").contains(" ops"), "{told}");
    bench.stop();
}

/// A server that is killed and comes back is a pause.
#[test]
fn a_killed_server_is_a_pause() {
    let mut bench = Bench::start();
    let file = bench.file("a.img", 8);
    let mut server = Server::nbdkit(bench.dir(), "killed", &["file", file.to_str().unwrap()]).unwrap();
    let vbd = bench.attach(&server.uri(""));
    let guest = bench.live(&vbd);
    guest.write(0).unwrap();
    server.kill();
    thread::scope(|scope| {
        let written = scope.spawn(|| timed(|| guest.write(1).unwrap()));
        thread::sleep(Duration::from_secs(1));
        server.start().unwrap();
        assert!(written.join().unwrap().1 >= Duration::from_secs(1));
    });
    bench.must_log("connected again");
    guest.read(0).unwrap();
    guest.read(1).unwrap();
    drop(guest);
    bench.stop();
}

/// Errors come after the time that is configured, and end when the server is back.
#[test]
fn a_server_that_stays_away_is_an_error_in_time() {
    let mut bench = Bench::start_with("images = [\"/\", \"nbd:\"]", "reconnect-s = 2");
    let file = bench.file("a.img", 8);
    let mut server = Server::nbdkit(bench.dir(), "away", &["file", file.to_str().unwrap()]).unwrap();
    let vbd = bench.attach(&server.uri(""));
    let guest = bench.live(&vbd);
    guest.write(0).unwrap();
    server.kill();
    let (refused, took) = timed(|| guest.write(1).unwrap_err());
    assert!(refused.contains("Input/output error"), "{refused}");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(6), "{took:?}");
    let (_, took) = timed(|| guest.write(1).unwrap_err());
    assert!(took < Duration::from_secs(1), "{took:?} though nobody has answered for long");
    bench.must_log("the server is away for too long");
    server.start().unwrap();
    bench.must_log("connected again");
    guest.write(1).unwrap();
    drop(guest);
    bench.stop();
}

/// One that is too slow, or hangs, is left, and the next connection may be better.
#[test]
fn a_server_that_hangs_is_left_in_time() {
    let mut bench =
        Bench::start_with("images = [\"/\", \"nbd:\"]", "timeout-s = 1\nreconnect-s = 3\nsettle-ms = 100");
    let arguments = ["--filter=delay", "memory", "8M", "delay-read=30"];
    let server = Server::nbdkit(bench.dir(), "slow", &arguments).unwrap();
    let slow = bench.attach(&server.uri(""));
    let fake = Fake::start(bench.dir(), Manners::default()).unwrap();
    let vbd = bench.attach(&fake.uri());
    bench.must_write(&vbd, 0);

    let (refused, took) = timed(|| bench.read(&slow, 0));
    assert!(words(&refused).contains("I/O error"), "{}", words(&refused));
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(10), "{took:?}");
    bench.must_log("the server does not answer in time");

    fake.behave(Manners { spoiled: Some((1, Spoil::Hang)), ..Manners::default() });
    bench.world.toolstack().detach(&vbd).unwrap();
    let vbd = bench.attach(&fake.uri());
    thread::scope(|scope| {
        let read = scope.spawn(|| bench.must_read(&vbd, 0));
        thread::sleep(Duration::from_millis(500));
        fake.behave(Manners::default());
        read.join().unwrap();
    });
    bench.stop();
}

/// Whatever a server answers, it is believed nothing, and the guest sees a pause.
#[test]
fn lies_end_the_connection() {
    let mut bench = Bench::start();
    let file = bench.file("a.img", 2);
    let other = bench.attach(file.to_str().unwrap());
    let fake = Fake::start(bench.dir(), Manners::default()).unwrap();
    let lies = [
        (Spoil::Close, "the server has closed the connection"),
        (Spoil::CloseInReply, "disconnected"),
        (Spoil::Magic, "magic"),
        (Spoil::Cookie, "cookie"),
        (Spoil::Error(108), "the server is shutting down"),
    ];
    for (spoil, word) in lies {
        fake.behave(Manners { spoiled: Some((3, spoil)), ..Manners::default() });
        let vbd = bench.attach(&fake.uri());
        let guest = bench.live(&vbd);
        thread::scope(|scope| {
            let work =
                scope.spawn(|| (0..4).map(|at| guest.write(at).and(guest.read(at))).find_map(Result::err));
            thread::sleep(Duration::from_millis(500));
            fake.behave(Manners::default());
            assert_eq!(work.join().unwrap(), None);
        });
        drop(guest);
        bench.must_log(word);
        bench.must_write(&other, 1);
        bench.world.toolstack().detach(&vbd).unwrap();
    }
    bench.stop();
}

/// An export that is not what it was is not written to; one that has grown is a larger disk.
#[test]
fn an_export_that_changes_is_refused_unless_it_grows() {
    let mut bench = Bench::start();
    let mut served = Manners { size: 8 * MIB, ..Manners::default() };
    let fake = Fake::start(bench.dir(), served.clone()).unwrap();
    let vbd = bench.attach(&fake.uri());
    let guest = bench.live(&vbd);
    guest.write(0).unwrap();
    let usual = served.flags;
    for (size, flags, word) in [
        (4 * MIB, usual, "the export has shrunk from 8388608 to 4194304 bytes"),
        (8 * MIB, usual | 2, "the export cannot be written to any more"),
        (8 * MIB, usual & !4, "the export cannot be flushed any more"),
        (8 * MIB, usual & !32, "the export cannot be trimmed any more"),
    ] {
        fake.behave(Manners { size, flags, ..served.clone() });
        fake.hang_up();
        thread::scope(|scope| {
            let write = scope.spawn(|| guest.write(1));
            thread::sleep(Duration::from_millis(500));
            fake.behave(served.clone());
            write.join().unwrap().unwrap();
        });
        bench.must_log(word);
    }
    served.size = 12 * MIB;
    fake.behave(served);
    fake.hang_up();
    bench.must_log("the export has grown");
    wait_until("a larger disk", PATIENCE, || Ok((bench.info(&vbd)["bytes"] == 12 * MIB).then_some(())))
        .unwrap();
    bench.must_write(&vbd, 11);
    bench.stop();
}
