//! The kinds of guests that take part.

use blkif_proto::Abi;

use crate::conformance::rig::Wish;

/// A guest's rings, and what it sends through them.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// For people.
    pub name: &'static str,
    /// The layout that it speaks.
    pub abi: Abi,
    /// Rings.
    pub queues: u32,
    /// Pages of each ring.
    pub ring_pages: u32,
    /// Pages stay mapped.
    pub persistent: bool,
    /// Large requests are in further ring entries.
    pub blocks: bool,
    /// Pages of the largest request; more than 11 without blocks are behind a descriptor page.
    pub most: u32,
    /// Writes may be barriers.
    pub barriers: bool,
}

/// All of them.
pub const SHAPES: [Shape; 5] = [
    Shape { name: "plain", queues: 1, ring_pages: 1, most: 11, ..PLAIN },
    Shape { name: "barriers", barriers: true, ..PLAIN },
    Shape { name: "indirect", queues: 2, ring_pages: 4, most: 32, ..PLAIN },
    Shape { name: "persistent", queues: 4, ring_pages: 2, persistent: true, most: 16, ..PLAIN },
    Shape {
        name: "blocks",
        abi: Abi::X86_32,
        queues: 2,
        ring_pages: 4,
        blocks: true,
        most: 20,
        barriers: true,
        ..PLAIN
    },
];

const PLAIN: Shape = Shape {
    name: "",
    abi: Abi::X86_64,
    queues: 1,
    ring_pages: 1,
    persistent: false,
    blocks: false,
    most: 11,
    barriers: false,
};

impl Shape {
    /// What its frontend asks for.
    pub fn wish(&self) -> Wish {
        let Self { queues, ring_pages, persistent, blocks, .. } = *self;
        Wish { queues, ring_pages, persistent, blocks, ..Wish::default() }
    }
}
