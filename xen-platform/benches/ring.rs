//! What the ring itself costs: nanoseconds for a request and its response, by batch size, with both ends on one thread
//! (the work alone) and on two (the work, and the cache lines that travel between two cores). The ring lies in a page
//! that one domain of the simulated machine granted to another.
//!
//! `cargo bench -p xen-platform --bench ring`
#![expect(clippy::expect_used, reason = "a measurement that fails has nothing to say")]

use ringbuf::{BackRing, FrontRing, Mapped};
use std::time::{Duration, Instant};
use xen_platform::fake::{self, Machine};
use xen_platform::{Access, BackWorld, DomId, FrontWorld, Lender, Mapper, Pages};

type Front = FrontRing<Mapped<Pages>>;
type Back = BackRing<Mapped<<<fake::World as BackWorld>::Mapper as Mapper>::RingPages>>;

const REQUESTS: u32 = 1 << 22;

fn main() {
    for entry_size in [108, 112] {
        for batch in [1, 8, 32] {
            let (alone, apart) = (one_thread(entry_size, batch), two_threads(entry_size, batch));
            println!(
                "entries of {entry_size} bytes, batches of {batch:2}: {:6.1} ns on one thread, {:6.1} ns on two",
                per_request(alone),
                per_request(apart)
            );
        }
    }
}

fn per_request(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

fn ring(entry_size: usize) -> (Front, Back) {
    let machine = Machine::new(0);
    let guest = machine.create_domain(16).expect("room for a guest");
    let mut lender = machine.world(guest).lender(DomId::DOM0).expect("a new guest");
    let mut pages = lender.alloc(1).expect("a free page");
    lender.lend(&mut pages, Access::ReadWrite).expect("a free grant");
    let mut mapper = machine.world(DomId::DOM0).mapper().expect("domain 0");
    let mapped = mapper.map_ring(guest, pages.grants()).expect("a granted page");

    let front = FrontRing::init(Mapped::new(pages, entry_size).expect("one page holds such entries"));
    let back = Mapped::new(mapped, entry_size).expect("one page holds such entries");
    (front, BackRing::attach(back).expect("a fresh ring"))
}

fn one_thread(entry_size: usize, batch: u32) -> Duration {
    let (mut front, mut back) = ring(entry_size);
    let start = Instant::now();
    for _ in 0..REQUESTS / batch {
        submit(&mut front, batch, entry_size);
        assert_eq!(serve(&mut back, entry_size), batch);
        assert_eq!(collect(&mut front), batch);
    }
    start.elapsed()
}

/// Both ends poll; the frontend waits for a whole batch before it sends the next.
fn two_threads(entry_size: usize, batch: u32) -> Duration {
    let (mut front, mut back) = ring(entry_size);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut served = 0;
            while served < REQUESTS {
                served += serve(&mut back, entry_size);
                std::hint::spin_loop();
            }
        });
        for _ in 0..REQUESTS / batch {
            submit(&mut front, batch, entry_size);
            let mut collected = 0;
            while collected < batch {
                collected += collect(&mut front);
                std::hint::spin_loop();
            }
        }
    });
    start.elapsed()
}

fn submit(front: &mut Front, batch: u32, entry_size: usize) {
    let request = [0x5a; 112];
    for _ in 0..batch {
        front.push(&request[..entry_size]).expect("the batch fits the ring");
    }
    let _ = front.publish(); // the other end polls
}

fn serve(back: &mut Back, entry_size: usize) -> u32 {
    let mut request = [0; 112];
    let mut served = 0;
    while back.available().expect("a correct frontend") > 0 {
        back.read(0, &mut request[..entry_size]).expect("an entry that was counted");
        back.consume(1).expect("an entry that was counted");
        back.respond(std::hint::black_box(&request[..16]), 1).expect("answers one request");
        served += 1;
    }
    let _ = back.publish(); // the other end polls
    served
}

fn collect(front: &mut Front) -> u32 {
    let mut response = [0; 16];
    let mut collected = 0;
    while front.peek(&mut response).expect("a correct backend") {
        front.consume(1).expect("a response that was peeked");
        std::hint::black_box(&response);
        collected += 1;
    }
    collected
}
