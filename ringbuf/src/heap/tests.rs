use super::Heap;
use crate::{Layout, mem};

#[test]
fn heap_is_ring_memory() {
    mem::tests::contract(4, || Heap::new(Layout::new(1, 108).unwrap()));
    mem::tests::contract(4, || Heap::new(Layout::new(3, 112).unwrap()));
}
