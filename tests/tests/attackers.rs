//! Scripted attackers that look into the product: docs/ADVISORIES.md says which advisory each is for.

use blkback::config::Strategy::{self, Copy, Direct, Persistent};
use blkif_proto::SegmentMode::{Blocks, Direct as InRing, Indirect};
use tests::attack::double_fetch;

const STRATEGIES: [Strategy; 3] = [Copy, Persistent, Direct];

#[test]
fn an_operation_that_changes_is_told_as_it_was_done() {
    double_fetch::operation(Direct, InRing);
    double_fetch::operation(Copy, Blocks);
    double_fetch::operation(Persistent, Indirect);
}

#[test]
fn a_count_that_shrinks_is_used_as_it_was_checked() {
    STRATEGIES.into_iter().for_each(double_fetch::shrinking_count);
}

#[test]
fn a_sector_that_changes_is_used_as_it_was_checked() {
    double_fetch::sector(Direct, InRing);
    double_fetch::sector(Copy, Blocks);
}

#[test]
fn a_segment_that_changes_is_used_as_it_was_checked() {
    double_fetch::segment(Direct, InRing);
    double_fetch::segment(Copy, Blocks);
}

#[test]
fn a_descriptor_that_changes_is_used_as_it_was_checked() {
    STRATEGIES.into_iter().for_each(double_fetch::descriptor);
}
