//! What a queue costs by itself, in nanoseconds per 4 KiB read: submit, publish, finish and buffer reuse are timed, the backend's
//! part between them is not. `cargo bench -p blkfront`.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::time::{Duration, Instant};

use blkfront::{
    Buffer, Config, Frontend, Io, SegmentChoice,
    fake::{Bed, Setup},
};
use blkif_proto::{Status, keys::BackendFeatures};

const ROUNDS: u32 = 20_000;

fn main() {
    for (persistent, depth) in [(true, 32), (true, 1), (false, 32), (false, 1)] {
        let mut runs: Vec<_> = (0..5).map(|_| run(persistent, depth)).collect();
        runs.sort_unstable();
        let grants = if persistent { "persistent" } else { "per-request" };
        println!("{grants} grants, depth {depth}: {} ns per request (median of 5)", runs[2].as_nanos());
    }
}

fn run(persistent: bool, depth: usize) -> Duration {
    let features = BackendFeatures { persistent, ..BackendFeatures::ORIGINAL };
    let bed = Bed::new(Setup { features, serve: false, ..Setup::plain(4096) });
    let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
    let config = Config { segments: SegmentChoice::Direct, ..Config::default() };
    let (device, mut queues) = frontend.configure(config).unwrap().set_up_queues().unwrap().start().unwrap();
    let queue = &mut queues[0];
    let mut buffers: Vec<Buffer> = (0..depth).map(|_| queue.alloc_buffer(4096).unwrap()).collect();
    let mut spent = Duration::ZERO;
    for round in 0..ROUNDS {
        let start = Instant::now();
        for (n, buffer) in buffers.drain(..).enumerate() {
            queue.submit(Io::read(n as u64 * 8, buffer).cookie(u64::from(round))).unwrap();
        }
        queue.publish().unwrap();
        spent += start.elapsed();
        {
            let mut backend = bed.backend();
            for request in backend.take(0) {
                backend.answer(0, request.response(Status::OKAY), request.entries);
            }
            backend.seen.clear();
            backend.publish(0);
        }
        let start = Instant::now();
        queue.finish(&mut |completion| buffers.extend(completion.io.buffer)).unwrap();
        spent += start.elapsed();
    }
    buffers.into_iter().for_each(|buffer| queue.free_buffer(buffer));
    let stopped = device.stop(queues, &mut |_| ()).map_err(|kept| kept.error).unwrap();
    stopped.unconfigure().unwrap();
    spent / (ROUNDS * u32::try_from(depth).unwrap_or(1))
}
