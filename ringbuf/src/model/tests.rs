use super::{Step, check, steps};
use crate::{Heap, Layout};
use proptest::prelude::*;

/// Any index, and often one from which a test's few steps pass the wrap.
fn start() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0..2000u32).prop_map(|back| u32::MAX - back), Just(0)]
}

proptest! {
    #[test]
    fn two_ends_behave_like_the_model(
        start in start(),
        pages in 1..=Layout::MAX_PAGES,
        entry_size in prop::sample::select(vec![108, 112]),
        steps in steps(),
    ) {
        let memory = Heap::new(Layout::new(pages, entry_size).unwrap());
        check(memory.clone(), memory, start, &steps);
    }

    /// A ring of 2 to 16 slots is mostly full, and its longer requests wrap round its end.
    #[test]
    fn a_small_ring_behaves_like_the_model(start in start(), order in 1..=4u32, steps in steps()) {
        let memory = Heap::new(Layout::tiny(1 << order, 16));
        check(memory.clone(), memory, start, &steps);
    }
}

/// The longest request of the segment-block extension, 19 entries, at every place of a one-page ring and over the index
/// wrap.
#[test]
fn a_request_of_19_entries_wraps_the_ring_end_everywhere() {
    use Step::{Answer, Collect, PublishRequests, PublishResponses, Push, Take};
    let round = [Push(19), PublishRequests, Take(1), Answer(0), PublishResponses, Collect(1)];
    for start in 0..32 {
        for start in [start, u32::MAX - start] {
            let memory = Heap::new(Layout::new(1, 112).unwrap());
            check(memory.clone(), memory, start, &round.repeat(3));
        }
    }
}
