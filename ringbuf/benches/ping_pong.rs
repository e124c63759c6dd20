//! What the ring itself costs: nanoseconds for a request and its response, by batch size, with both ends on one thread
//! (the work alone) and on two (the work, and the cache lines that travel between two cores).
//!
//! `cargo bench -p ringbuf`
#![cfg(not(loom))]

use ringbuf::{BackRing, FrontRing, Heap, Layout};
use std::time::{Duration, Instant};

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

fn ring(entry_size: usize) -> (FrontRing<Heap>, BackRing<Heap>) {
    let memory = Heap::new(Layout::new(1, entry_size).expect("one page holds such entries"));
    let front = FrontRing::init(memory.clone());
    (front, BackRing::attach(memory).expect("a fresh ring"))
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

fn submit(front: &mut FrontRing<Heap>, batch: u32, entry_size: usize) {
    let request = [0x5a; 112];
    for _ in 0..batch {
        front.push(&request[..entry_size]).expect("the batch fits the ring");
    }
    let _ = front.publish(); // the other end polls
}

fn serve(back: &mut BackRing<Heap>, entry_size: usize) -> u32 {
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

fn collect(front: &mut FrontRing<Heap>) -> u32 {
    let mut response = [0; 16];
    let mut collected = 0;
    while front.peek(&mut response).expect("a correct backend") {
        front.consume(1).expect("a response that was peeked");
        std::hint::black_box(&response);
        collected += 1;
    }
    collected
}
