//! What every [`RingMem`] must do, as a suite: `word` is the width in bytes to which it completes a write.

use super::{Field, RingMem};
use crate::Index;

pub(crate) fn contract<M: RingMem>(word: usize, fresh: impl Fn() -> M) {
    indices_are_apart(&fresh());
    slots_are_apart(&fresh());
    short_copies_end_where_the_buffer_ends(&fresh(), word);
    long_copies_end_where_the_slot_ends(&fresh());
    clear_leaves_nothing(&fresh());
}

const FIELDS: [Field; 4] = [Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent];

fn indices_are_apart<M: RingMem>(mem: &M) {
    for (field, value) in FIELDS.into_iter().zip(1..) {
        assert_eq!(mem.load(field), Index::START, "fresh memory is zero");
        mem.store(field, Index::new(u32::MAX - value));
    }
    for (field, value) in FIELDS.into_iter().zip(1..) {
        assert_eq!(mem.load(field), Index::new(u32::MAX - value));
    }
}

fn slots_are_apart<M: RingMem>(mem: &M) {
    let (entries, size) = (mem.layout().entries(), mem.layout().entry_size());
    let entry =
        |slot: u32| -> Vec<u8> { (0..size).map(|n| (slot as usize * 7 + n).to_le_bytes()[0]).collect() };
    for slot in 0..entries {
        mem.write_slot(Index::new(slot), &entry(slot));
    }
    let mut read = vec![0; size];
    for slot in 0..entries {
        // One lap on: the same slot.
        mem.read_slot(Index::new(slot).plus(entries), &mut read);
        assert_eq!(read, entry(slot));
    }
    assert!(FIELDS.into_iter().all(|field| mem.load(field) == Index::START), "a slot lies over the indices");
}

fn short_copies_end_where_the_buffer_ends<M: RingMem>(mem: &M, word: usize) {
    let size = mem.layout().entry_size();
    let last = Index::new(u32::MAX);
    for length in 0..=size {
        mem.write_slot(last, &vec![0xaa; size]);
        mem.write_slot(last, &vec![0x55; length]);
        let mut read = vec![0; size];
        mem.read_slot(last, &mut read);
        let (written, completed) = (length, length.next_multiple_of(word));
        assert!(read[..written].iter().all(|&byte| byte == 0x55));
        assert!(read[written..completed].iter().all(|&byte| byte == 0), "{length} bytes leak into a word");
        assert!(read[completed..].iter().all(|&byte| byte == 0xaa), "{length} bytes reach too far");

        let mut short = vec![0x11; length];
        mem.read_slot(last, &mut short);
        assert_eq!(short, read[..length]);
    }
}

fn long_copies_end_where_the_slot_ends<M: RingMem>(mem: &M) {
    let size = mem.layout().entry_size();
    mem.write_slot(Index::new(0), &vec![0x55; size + 9]);
    let mut read = vec![0x11; size + 9];
    mem.read_slot(Index::new(0), &mut read);
    assert!(read[..size].iter().all(|&byte| byte == 0x55));
    assert!(read[size..].iter().all(|&byte| byte == 0x11));
    mem.read_slot(Index::new(1), &mut read);
    assert!(read[..size].iter().all(|&byte| byte == 0), "a long entry runs into the next slot");
}

fn clear_leaves_nothing<M: RingMem>(mem: &M) {
    let size = mem.layout().entry_size();
    for field in FIELDS {
        mem.store(field, Index::new(7));
    }
    for slot in 0..mem.layout().entries() {
        mem.write_slot(Index::new(slot), &vec![0xff; size]);
    }
    mem.clear();
    let mut read = vec![1; size];
    for slot in 0..mem.layout().entries() {
        mem.read_slot(Index::new(slot), &mut read);
        assert!(read.iter().all(|&byte| byte == 0));
    }
    assert!(FIELDS.into_iter().all(|field| mem.load(field) == Index::START));
}
