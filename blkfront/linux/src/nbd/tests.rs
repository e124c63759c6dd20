//! The server as a whole, with raw clients and a backend of memory.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use super::{
    testing::{option, request, wanted},
    wire::{Command, Fields, command_flags, option},
};
use crate::{exit::Usage, signal::Stop, testbed::Bed};

const SIZE: usize = 8 << 20;

/// Runs `clients` against a server on `queues` queues, and stops it.
fn served(bed: &Bed, arguments: &[&str], clients: impl FnOnce(&Path)) {
    let (path, stop) = (bed.path("nbd.sock"), Stop::default());
    let arguments = [arguments, &["nbd", "--export", "disk", "--socket", &path]].concat();
    thread::scope(|scope| {
        let server = scope.spawn(|| bed.run_until(&arguments, stop.clone()));
        while UnixStream::connect(&path).is_err() {
            assert!(!server.is_finished(), "{:?}", server.join());
            thread::sleep(Duration::from_millis(1));
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clients(Path::new(&path))));
        stop.request();
        let served = server.join().unwrap();
        ended.unwrap();
        served.unwrap();
    });
    assert!(!Path::new(&path).exists(), "the socket is removed");
}

/// A client past its handshake.
struct Client(UnixStream);

impl Client {
    fn new(path: &Path) -> Self {
        let mut client = Self(UnixStream::connect(path).unwrap());
        client.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(client.take(18), b"NBDMAGICIHAVEOPT\0\x03");
        client.say(&[&3u32.to_be_bytes()[..], &option(option::GO, &wanted("disk", &[]))].concat());
        // Three replies: size and flags, block sizes, and the end.
        client.take(20 + 12 + 20 + 14 + 20);
        client
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn ask(&mut self, command: Command, flags: u16, cookie: u64, offset: u64, length: u32) {
        self.say(&request(command, flags, cookie, offset, length));
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next reply's error and cookie.
    fn reply(&mut self) -> (u32, u64) {
        let header = self.take(16);
        let mut fields = Fields(&header);
        assert_eq!(fields.u32(), Some(0x6744_6698));
        (fields.u32().unwrap(), fields.u64().unwrap())
    }

    /// True when the server has hung up.
    fn is_cut_off(&mut self) -> bool {
        let mut rest = Vec::new();
        matches!(self.0.read_to_end(&mut rest), Ok(0)) || rest.is_empty()
    }
}

fn noise(length: usize) -> Vec<u8> {
    (1..=251).cycle().take(length).collect()
}

#[test]
fn data_comes_back_as_it_was_written_also_in_large_requests() {
    let bed = Bed::new(SIZE);
    served(&bed, &[], |path| {
        let mut client = Client::new(path);
        for (cookie, length) in [(1, 512), (2, 4096), (3, 70_144), (4, 3 << 20)] {
            let size = u32::try_from(length).unwrap();
            client.ask(Command::WRITE, 0, cookie, 1 << 20, size);
            client.say(&noise(length));
            assert_eq!(client.reply(), (0, cookie));
            client.ask(Command::READ, 0, cookie + 10, 1 << 20, size);
            assert_eq!(client.reply(), (0, cookie + 10));
            assert!(client.take(length) == noise(length), "{length} bytes");
        }
        client.ask(Command::DISCONNECT, 0, 0, 0, 0);
        assert!(client.is_cut_off());
    });
    assert!(bed.medium().bytes[1 << 20..4 << 20] == noise(3 << 20));
}

#[test]
fn many_requests_of_several_clients_are_all_answered() {
    let (bed, content) = (Bed::new(SIZE), noise(SIZE));
    bed.medium().bytes.copy_from_slice(&content);
    served(&bed, &["--queues", "2"], |path| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = Client::new(path);
                    // More than a client may have under way, and more than the ring holds.
                    for cookie in 0..600 {
                        client.ask(Command::READ, 0, cookie, cookie * 512 % SIZE as u64, 512);
                    }
                    let mut seen = vec![false; 600];
                    for _ in 0..600 {
                        let (error, cookie) = client.reply();
                        let at = usize::try_from(cookie * 512).unwrap() % SIZE;
                        assert_eq!((error, &client.take(512)[..]), (0, &content[at..at + 512]));
                        assert!(!std::mem::replace(&mut seen[usize::try_from(cookie).unwrap()], true));
                    }
                });
            }
        });
    });
}

#[test]
fn zeroes_trims_and_flushes_reach_the_disk() {
    let bed = Bed::with(SIZE, |medium| medium.bytes.fill(0xee));
    served(&bed, &[], |path| {
        let mut client = Client::new(path);
        client.ask(Command::WRITE_ZEROES, 0, 1, 4096, 2 << 20);
        assert_eq!(client.reply(), (0, 1));
        assert_eq!(bed.medium().flushes, 0);
        client.ask(Command::FLUSH, 0, 2, 0, 0);
        assert_eq!(client.reply(), (0, 2));
        assert_eq!(bed.medium().flushes, 1);
        client.ask(Command::WRITE, command_flags::FUA, 3, 0, 512);
        client.say(&noise(512));
        assert_eq!(client.reply(), (0, 3));
        assert_eq!(bed.medium().flushes, 2, "a write with FUA is durable when answered");
        client.ask(Command::TRIM, command_flags::FUA, 4, 4 << 20, 1 << 20);
        assert_eq!(client.reply(), (0, 4));
        let medium = bed.medium();
        assert_eq!((medium.discards, medium.flushes), (1, 3));
    });
    let medium = bed.medium();
    assert!(medium.bytes[..512] == noise(512) && medium.bytes[512..4096].iter().all(|byte| *byte == 0xee));
    assert!(medium.bytes[4096..][..2 << 20].iter().all(|byte| *byte == 0));
}

#[test]
fn errors_are_told_and_the_connection_goes_on() {
    let bed = Bed::with(SIZE, |medium| medium.full_from = Some(1 << 20));
    served(&bed, &[], |path| {
        let mut client = Client::new(path);
        client.ask(Command::READ, 0, 1, SIZE as u64, 512);
        assert_eq!(client.reply(), (22, 1));
        client.ask(Command::WRITE, 0, 2, u64::MAX - 511, 1024);
        client.say(&noise(1024));
        assert_eq!(client.reply(), (28, 2));
        client.ask(Command(99), 0, 3, 0, 0);
        assert_eq!(client.reply(), (22, 3));
        client.ask(Command::WRITE, 0, 4, (1 << 20) - 512, 1 << 20);
        client.say(&noise(1 << 20));
        assert_eq!(client.reply(), (5, 4), "the backend's error");
        client.ask(Command::WRITE_ZEROES, command_flags::FUA, 5, 0, 4 << 20);
        assert_eq!(client.reply(), (5, 5));
        client.ask(Command::READ, 0, 6, 0, 512);
        assert_eq!(client.reply(), (0, 6));
        client.take(512);
    });
}

#[test]
fn clients_that_break_the_protocol_or_off_disturb_nobody() {
    let bed = Bed::new(SIZE);
    served(&bed, &[], |path| {
        let mut witness = Client::new(path);
        let mut garbled = Client::new(path);
        garbled.say(&[0xff; 28]);
        assert!(garbled.is_cut_off());
        let mut rude = UnixStream::connect(path).unwrap();
        rude.write_all(&[0xff; 64]).unwrap();
        for cut in [0, 1, 100_000, 200_000] {
            let mut leaver = Client::new(path);
            leaver.ask(Command::WRITE, 0, 1, 0, 1 << 20);
            leaver.say(&noise(cut));
            leaver.ask(Command::READ, 0, 2, 0, 1 << 20);
            if cut % 3 == 0 {
                leaver.0.shutdown(Shutdown::Write).unwrap();
            }
        }
        let mut deaf = Client::new(path);
        for cookie in 0..64 {
            deaf.ask(Command::READ, 0, cookie, 0, 4 << 20);
        }
        for cookie in 0..50 {
            witness.ask(Command::READ, 0, cookie, 0, 4096);
            assert_eq!(witness.reply(), (0, cookie));
            witness.take(4096);
        }
    });
}

#[test]
fn a_read_only_disk_is_served_for_reading() {
    use blkif_proto::keys::DiskInfo;
    let bed = Bed::with(SIZE, |medium| medium.disk.info = DiskInfo::READ_ONLY);
    served(&bed, &[], |path| {
        let mut client = Client::new(path);
        client.ask(Command::WRITE, 0, 1, 0, 512);
        client.say(&noise(512));
        assert_eq!(client.reply(), (1, 1));
        client.ask(Command::READ, 0, 2, 0, 512);
        assert_eq!(client.reply(), (0, 2));
    });
}

#[test]
fn a_stop_answers_what_was_asked() {
    let bed = Bed::new(SIZE);
    let (path, stop) = (bed.path("nbd.sock"), Stop::default());
    let arguments = ["nbd", "--export", "disk", "--socket", &path];
    thread::scope(|scope| {
        let server = scope.spawn(|| bed.run_until(&arguments, stop.clone()));
        while UnixStream::connect(&path).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut client = Client::new(Path::new(&path));
        bed.medium().hang = true;
        client.ask(Command::READ, 0, 1, 0, 1 << 20);
        thread::sleep(Duration::from_millis(50));
        stop.request();
        thread::sleep(Duration::from_millis(50));
        bed.medium().hang = false;
        assert_eq!(client.reply(), (0, 1));
        client.take(1 << 20);
        assert!(client.is_cut_off());
        server.join().unwrap().unwrap();
    });
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_dead_one_replaced() {
    let bed = Bed::new(SIZE);
    let path = bed.path("nbd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(bed.run(&["nbd", "--socket", &path]).unwrap_err().is::<Usage>());
    drop(listener);
    assert!(Path::new(&path).exists());
    served(&bed, &[], |path| drop(Client::new(path)));
}
