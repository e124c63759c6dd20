//! The power fails: what was flushed is there, wherever it happens, also when the daemon was killed before.

use std::{collections::HashMap, fs, time::Duration};

use blkif_proto::{Abi, Opcode, Status};
use tests::{
    conformance::rig::{Connection, Guest, Raw, Wish, noise, whole},
    medium::{Event, Medium},
    world::{Binaries, Disk, World},
};
use xen_platform::{Pages, sim};

const IMAGE: usize = 1 << 20;
const SECTORS: usize = IMAGE / 512;
/// Bytes that one request of a batch has for itself.
const CHUNK: usize = 64 << 10;
const BATCHES: u64 = 60;

/// Of each sector, the number of the write whose data it must have at least: later writes have greater numbers.
type Sectors = Vec<u64>;

struct Guarded {
    medium: Medium,
    world: World,
    _guest: Guest<sim::World>,
    connection: Connection<sim::World>,
    random: Box<dyn FnMut(usize) -> usize>,
    /// Writes that were answered.
    acknowledged: Sectors,
    /// What must last, after so many events of the medium.
    lasting: Vec<(usize, Sectors)>,
}

struct Sent {
    raw: Raw,
    data: Option<Pages>,
    /// First sector and number of sectors.
    range: (usize, usize),
    /// What is to last when it is answered.
    lasts: Option<Sectors>,
}

/// A sector of the write number `id`, which it can be told by.
fn sector(id: u64) -> [u8; 512] {
    let mut sector = [0; 512];
    sector.as_chunks_mut::<8>().0.fill(id.to_le_bytes());
    sector
}

/// The number of the write that a sector comes from. Panics when it comes from none.
fn number(bytes: &[u8; 512]) -> u64 {
    let id = u64::from_le_bytes(bytes.as_chunks::<8>().0[0]);
    assert!(*bytes == sector(id), "a sector is made of two");
    id
}

impl Guarded {
    fn new() -> Self {
        let medium = Medium::mount(IMAGE).unwrap();
        let mut world = World::start(Binaries::build().unwrap()).unwrap();
        world.start_backend(&[]).unwrap();
        let vbd = world.guest_with_disk(&medium.disk()).unwrap();
        let mut guest = Guest::of(world.dir(), vbd, Abi::X86_64).unwrap();
        let connection = guest.connect(&Wish::default()).unwrap();
        let mut numbers = noise(11, 1 << 16).into_iter().map(usize::from).cycle();
        let random = Box::new(move |below: usize| numbers.next().unwrap_or(0) * below / 256);
        Self {
            medium,
            world,
            _guest: guest,
            connection,
            random,
            acknowledged: vec![0; SECTORS],
            lasting: Vec::new(),
        }
    }

    /// Writes, and at times flushes and barriers, none of which touches what another does.
    fn batch(&mut self) -> Vec<Sent> {
        let mut sent: Vec<Sent> = Vec::new();
        let mut after = self.acknowledged.clone();
        let first = (self.random)(IMAGE / CHUNK);
        for n in 0..2 + (self.random)(8) {
            let id = self.connection.id();
            let op = match (self.random)(8) {
                0 => Opcode::FLUSH,
                1 => Opcode::WRITE_BARRIER,
                _ => Opcode::WRITE,
            };
            if op == Opcode::FLUSH {
                let lasts = Some(self.acknowledged.clone());
                sent.push(Sent { raw: Raw::data(op, id, 0, &[]), data: None, range: (0, 0), lasts });
                continue;
            }
            let pages = 1 + (self.random)(11);
            let at =
                (first + n) % (IMAGE / CHUNK) * CHUNK + 512 * (self.random)((CHUNK - pages * 4096) / 512 + 1);
            let content = sector(id).repeat(pages * 8);
            let data = self.connection.lend(&content, self.connection.access_to_write()).unwrap();
            let range = (at / 512, pages * 8);
            after[range.0..range.0 + range.1].fill(id);
            // A barrier lasts, and what is ahead of it.
            let lasts = (op == Opcode::WRITE_BARRIER).then(|| after.clone());
            sent.push(Sent {
                raw: Raw::data(op, id, range.0 as u64, &whole(&data)),
                data: Some(data),
                range,
                lasts,
            });
        }
        sent
    }

    /// Sends a batch, kills the daemon under it or not, and takes the answers.
    fn run(&mut self, kill: bool) {
        let mut sent: HashMap<u64, Sent> = HashMap::new();
        let mut strides = HashMap::new();
        for request in self.batch() {
            let entries = request.raw.entries(Abi::X86_64);
            self.connection.queue().push(&entries).unwrap();
            strides.insert(request.raw.id, 1);
            sent.insert(request.raw.id, request);
        }
        self.connection.queue().kick().unwrap();
        if kill {
            std::thread::sleep(Duration::from_micros(100 * (self.random)(30) as u64));
            self.world.kill_backend().unwrap();
            self.world.start_backend(&[]).unwrap();
        }
        while !sent.is_empty() {
            let answer = self.connection.queue().answer_to(&mut strides).unwrap();
            assert_eq!(answer.status, Status::OKAY, "{answer:?}");
            let Sent { data, range, lasts, .. } = sent.remove(&answer.id).unwrap();
            self.acknowledged[range.0..range.0 + range.1].fill(answer.id);
            if let Some(lasts) = lasts {
                let events = self.medium.tape().events.len();
                let mut must = self.lasting.last().map_or_else(|| vec![0; SECTORS], |(_, must)| must.clone());
                must.iter_mut().zip(lasts).for_each(|(must, id)| *must = id.max(*must));
                self.lasting.push((events, must));
            }
            if let Some(data) = data {
                self.connection.take_back(data).unwrap();
            }
        }
    }

    /// Every place where the power can fail.
    fn check(&mut self) -> usize {
        let Self { medium, lasting, random, .. } = self;
        let tape = medium.tape();
        let flushes = tape.events.iter().filter(|event| **event == Event::Flush).count();
        assert!(flushes > 10 && lasting.len() > 10, "nothing was checked: {flushes} flushes");
        let ends = lasting.iter().skip(1).map(|(events, _)| *events).chain([tape.events.len()]);
        let mut checked = 0;
        for ((begin, must), end) in lasting.iter().zip(ends) {
            for cut in *begin..=end {
                let (mut first, most) = (0, (random)(16));
                let prefix = || {
                    first += 1;
                    first <= most
                };
                holds(&tape.left(cut, || false), must, cut);
                holds(&tape.left(cut, prefix), must, cut);
                holds(&tape.left(cut, || (random)(2) == 0), must, cut);
                checked += 3;
            }
        }
        checked
    }
}

/// What a power loss left has at least what must last.
fn holds(left: &[u8], must: &Sectors, cut: usize) {
    for (place, (sector, must)) in left.as_chunks().0.iter().zip(must).enumerate() {
        let id = number(sector);
        assert!(id >= *must, "after event {cut}, sector {place} has {id}, and {must} was promised to last");
    }
}

#[test]
fn what_was_flushed_survives_a_power_loss_anywhere() {
    let mut guarded = Guarded::new();
    for batch in 0..BATCHES {
        guarded.run(batch % 5 == 4);
    }
    let checked = guarded.check();
    println!("{checked} power losses, {} promises", guarded.lasting.len());

    // And once the whole way: what is left becomes the disk of another host, whose guest reads it through the ring.
    let Guarded { medium, mut world, lasting, mut random, .. } = guarded;
    let tape = medium.tape();
    let left = tape.left(tape.events.len(), || (random)(2) == 0);
    drop(tape);
    world.kill_backend().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    fs::write(&image, left).unwrap();
    drop(world);
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    world.start_backend(&[]).unwrap();
    let vbd = world.guest_with_disk(&Disk::new(image.to_str().unwrap())).unwrap();
    let mut guest = Guest::of(world.dir(), vbd, Abi::X86_64).unwrap();
    let read = guest.connect(&Wish::default()).unwrap().read(0, IMAGE).unwrap();
    let (cut, must) = lasting.last().unwrap();
    holds(&read, must, *cut);
    guest.close().unwrap();
    world.stop().unwrap();
}
