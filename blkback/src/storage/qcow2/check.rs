//! Whether the tables of an image add up, before anything is written to it: no cluster is led to more often than it is counted, and
//! what may be written in place is nobody else's.
//!
//! Whoever writes to an image believes its counts. In one whose counts are wrong, by a power loss or by intent, a guest's data would be
//! written over tables, and the library recurses without end. So all tables are read first, as `qemu-img check` does.

use std::{collections::BTreeMap, io};

use super::{
    header::{Header, Refused, be32, be64},
    layer::Layer,
};

/// The place in an entry of either level; what it says beside.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// Clusters that are counted in one piece.
const PIECE: usize = 4096;
/// Of a cluster's references: it may be written in place, so there is one at most. The rest is their number.
const OWN: u16 = 1 << 15;
/// Tables of level 2 that are looked at, those of snapshots each time that they are led to.
const VISITS_MAX: usize = 1 << 20;

/// How often each cluster is led to; and reads tables.
struct Count<'a> {
    layer: &'a Layer,
    header: &'a Header,
    pieces: BTreeMap<u64, Box<[u16; PIECE]>>,
    visits: usize,
}

/// Looks at all tables of the image. Says how many clusters are lost, led to by nobody. Errors: they contradict each other.
pub(super) fn check(layer: &Layer, header: &Header) -> Result<u64, Refused> {
    let mut count = Count { layer, header, pieces: BTreeMap::new(), visits: 0 };
    count.refer(0, header.cluster(), OWN)?;
    let Header { l1, reftable, .. } = header;
    count.refer(l1.start, l1.end - l1.start, OWN)?;
    count.refer(reftable.start, reftable.end - reftable.start, OWN)?;
    count.level_1(l1.start, l1.end - l1.start, true)?;
    count.snapshots()?;
    let blocks = count.table(reftable.start, reftable.end - reftable.start)?;
    let blocks: Vec<u64> = blocks.chunks(8).map(|entry| be64(entry, 0)).collect();
    for block in blocks.iter().filter(|block| **block != 0) {
        count.inside("block of reference counts", *block)?;
        count.refer(*block, header.cluster(), OWN)?;
    }
    count.compare(&blocks)
}

impl Count<'_> {
    /// Notes references to all clusters of a range.
    fn refer(&mut self, at: u64, len: u64, own: u16) -> Result<(), Refused> {
        let bits = self.header.cluster_bits;
        let Some(end) = at.checked_add(len) else {
            return Err(Refused(format!("a table leads to byte {at}")));
        };
        for cluster in at >> bits..end.div_ceil(1 << bits) {
            let piece = self.pieces.entry(cluster / PIECE as u64).or_insert_with(|| Box::new([0; PIECE]));
            let count = &mut piece[usize::try_from(cluster).unwrap_or(0) % PIECE];
            if *count & !OWN < OWN - 1 {
                *count += 1;
            }
            *count |= own;
        }
        Ok(())
    }

    fn inside(&self, what: &str, at: u64) -> Result<(), Refused> {
        let end = self.layer.len().next_multiple_of(self.header.cluster());
        if at.is_multiple_of(self.header.cluster()) && at.saturating_add(self.header.cluster()) <= end {
            return Ok(());
        }
        Err(Refused(format!("a {what} is said to be at byte {at}; the file has {}", self.layer.len())))
    }

    fn table(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut table = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.layer.read_now(&mut table, at)?;
        Ok(table)
    }

    /// A table of level 1 and all below it. Only in the one that is `active` entries say what may be written in place.
    fn level_1(&mut self, at: u64, len: u64, active: bool) -> Result<(), Refused> {
        for entry in self.table(at, len)?.chunks(8).map(|entry| be64(entry, 0)) {
            let place = entry & PLACE;
            if place == 0 {
                continue;
            }
            self.inside("table of level 2", place)?;
            self.visits += 1;
            if self.visits > VISITS_MAX {
                return Err(Refused(format!("it has more than {VISITS_MAX} tables of level 2")));
            }
            let own = if active && entry & COPIED != 0 { OWN } else { 0 };
            self.refer(place, self.header.cluster(), own)?;
            self.level_2(place, active && own != 0)?;
        }
        Ok(())
    }

    fn level_2(&mut self, at: u64, active: bool) -> Result<(), Refused> {
        for entry in self.table(at, self.header.cluster())?.chunks(8).map(|entry| be64(entry, 0)) {
            if entry & COMPRESSED != 0 {
                let bits = 62 - (self.header.cluster_bits - 8);
                let place = entry & ((1 << bits) - 1) & (PLACE | 0x1ff);
                let sectors = (entry & !(COMPRESSED | COPIED)) >> bits;
                self.refer(place, (sectors + 1) * 512 - place % 512, 0)?;
            } else if entry & PLACE != 0 {
                let own = if active && entry & COPIED != 0 { OWN } else { 0 };
                self.refer(entry & PLACE, self.header.cluster(), own)?;
            }
        }
        Ok(())
    }

    fn snapshots(&mut self) -> Result<(), Refused> {
        let mut at = self.header.snapshots_at;
        for _ in 0..self.header.snapshots {
            let fixed = self.table(at, 40)?;
            let (l1, entries) = (be64(&fixed, 0), u64::from(be32(&fixed, 8)));
            let names = be32(&fixed, 12);
            let len = 40 + u64::from(be32(&fixed, 36)) + u64::from(names >> 16) + u64::from(names & 0xffff);
            if entries * 8 > super::header::L1_MAX
                || at.checked_add(len).is_none_or(|end| end > self.layer.len() + 8)
            {
                return Err(Refused(format!("the snapshot at byte {at} is none")));
            }
            if entries > 0 {
                self.inside("snapshot's table of level 1", l1)?;
                self.refer(l1, entries * 8, OWN)?;
                self.level_1(l1, entries * 8, false)?;
            }
            at += len.next_multiple_of(8);
        }
        let (start, end) = (self.header.snapshots_at, at);
        if end > start { self.refer(start, end - start, OWN) } else { Ok(()) }
    }

    /// Holds what was found against what is counted.
    fn compare(&mut self, blocks: &[u64]) -> Result<u64, Refused> {
        let order = self.header.refcount_order;
        let in_block = self.header.cluster() << 3 >> order;
        let (mut lost, mut least) = (0, 0);
        for (number, block) in (0u64..).zip(blocks).filter(|(_, block)| **block != 0) {
            let first = number * in_block;
            self.uncounted(least, first)?;
            least = first + in_block;
            let counts = self.table(*block, self.header.cluster())?;
            for place in 0..in_block {
                let counted = refcount(&counts, place, order);
                let found = self.references(first + place);
                let references = u64::from(found & !OWN);
                if counted < references || found & OWN != 0 && counted != 1 {
                    return Err(contradicts(first + place, references, counted));
                }
                lost += u64::from(counted > references);
            }
        }
        self.uncounted(least, u64::MAX)?;
        Ok(lost)
    }

    fn references(&self, cluster: u64) -> u16 {
        let piece = self.pieces.get(&(cluster / PIECE as u64));
        piece.map_or(0, |piece| piece[usize::try_from(cluster).unwrap_or(0) % PIECE])
    }

    /// There is nothing in this range of clusters.
    fn uncounted(&self, from: u64, to: u64) -> Result<(), Refused> {
        if from >= to {
            return Ok(());
        }
        for (number, piece) in self.pieces.range(from / PIECE as u64..=to / PIECE as u64) {
            for (cluster, found) in (number * PIECE as u64..).zip(piece.iter()) {
                if *found != 0 && (from..to).contains(&cluster) {
                    return Err(contradicts(cluster, u64::from(found & !OWN), 0));
                }
            }
        }
        Ok(())
    }
}

fn contradicts(cluster: u64, references: u64, counted: u64) -> Refused {
    Refused(format!(
        "its tables contradict each other: cluster {cluster} is led to {references} times and counted {counted} times; \
         `qemu-img check -r all` may mend it"
    ))
}

/// The count at `place` of a block; counts of less than a byte begin at its lowest bits.
fn refcount(block: &[u8], place: u64, order: u32) -> u64 {
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let byte = |at: usize| block.get(at).copied().map_or(0, u64::from);
    match order {
        0..3 => {
            let bit = place << order;
            byte(bit / 8) >> (bit % 8) & ((1 << (1 << order)) - 1)
        }
        _ => {
            let len = 1 << (order - 3);
            (place * len..place * len + len).fold(0, |count, at| count << 8 | byte(at))
        }
    }
}
