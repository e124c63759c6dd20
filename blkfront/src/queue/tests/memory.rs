//! Buffers where memory is scarce.

use xen_platform::{DomId, Lender as _, PAGE_SIZE};

use super::*;

/// A connected disk in a guest whose memory is in use but for some pages that the queue has already, and how many.
fn scarce(persistent: bool) -> (Fixture, World, usize) {
    let mut f = fixture(|setup, _| setup.features.persistent = persistent);
    let hog = f.bed.world();
    let mut lender = hog.lender(DomId::DOM0).unwrap();
    for size in [4096, 256, 16, 1] {
        while lender.alloc(size).is_ok() {}
    }
    let ours = take_all(&mut f, 1);
    let left = ours.len();
    assert!((8..=f.queue.depth()).contains(&left), "{left} pages left");
    free_all(&mut f, ours);
    (f, hog, left)
}

/// As many buffers of `pages` pages as there are.
fn take_all(f: &mut Fixture, pages: usize) -> Vec<Buffer> {
    core::iter::from_fn(|| f.queue.alloc_buffer(pages * PAGE_SIZE).ok()).collect()
}

fn free_all(f: &mut Fixture, buffers: Vec<Buffer>) {
    buffers.into_iter().for_each(|buffer| f.queue.free_buffer(buffer));
}

/// Reads into each buffer, and lets the backend map them for that.
fn use_all(f: &mut Fixture, buffers: Vec<Buffer>) -> Vec<Buffer> {
    for buffer in buffers {
        f.queue.submit(Io::read(0, buffer)).unwrap();
    }
    f.queue.publish().unwrap();
    let mut done = Vec::new();
    while f.queue.in_flight() > 0 {
        let mut backend = f.bed.backend();
        for request in backend.take(0) {
            let status = backend.run(&request);
            backend.answer(0, request.response(status), request.entries);
        }
        backend.publish(0);
        drop(backend);
        done.extend(f.finish().1);
    }
    done.into_iter().map(|completion| completion.io.buffer.unwrap()).collect()
}

#[test]
fn a_guest_out_of_memory_is_told_and_works_on() {
    let (mut f, _hog, _) = scarce(false);
    let ours = take_all(&mut f, 1);
    assert_eq!(f.queue.alloc_buffer(4096).unwrap_err(), GrantError::Exhausted);
    let ours = use_all(&mut f, ours);
    free_all(&mut f, ours);
    f.stop();
}

#[test]
fn idle_buffers_become_buffers_of_other_sizes() {
    let (mut f, _hog, left) = scarce(false);
    for pages in [left, 1, left / 2, left, 2, 1, 3] {
        let buffers = take_all(&mut f, pages);
        assert_eq!(buffers.len(), left / pages, "of {pages} pages");
        let buffers = use_all(&mut f, buffers);
        free_all(&mut f, buffers);
    }
    f.stop();
}

#[test]
fn a_buffer_that_stays_mapped_serves_smaller_ones_in_part() {
    let (mut f, _hog, left) = scarce(true);
    let large = take_all(&mut f, left / 2);
    let large = use_all(&mut f, large);
    assert_eq!(large.len(), 2);
    free_all(&mut f, large);
    // What is left of an odd number.
    let odd = take_all(&mut f, 1);
    assert!(odd.iter().all(|buffer| buffer.len() == 4096));
    assert_eq!(odd.len(), left % 2 + 2);
    assert_eq!(odd[0].write(4000, &[1; 200]), 96, "what lies behind is not to be reached");
    let odd = use_all(&mut f, odd);
    assert!(f.bed.backend().seen.iter().rev().take(odd.len()).all(|request| request.segments.len() == 1));
    free_all(&mut f, odd);

    let large = take_all(&mut f, left / 2);
    assert_eq!(large.len(), 2);
    assert!(large.iter().all(|buffer| buffer.mem().len() == left / 2 * PAGE_SIZE), "whole again");
    assert_eq!(f.queue.stats().quarantined, 0);
    free_all(&mut f, large);
    f.stop();
}

#[test]
fn what_the_backend_lets_go_of_can_change_its_size() {
    let (mut f, _hog, left) = scarce(true);
    let small = take_all(&mut f, 1);
    let small = use_all(&mut f, small);
    free_all(&mut f, small);
    assert_eq!(f.queue.alloc_buffer(left * PAGE_SIZE).unwrap_err(), GrantError::Exhausted);
    let small = take_all(&mut f, 1);
    assert_eq!(small.len(), left, "none was lost in the attempt");
    free_all(&mut f, small);

    f.bed.backend().let_go();
    let large = take_all(&mut f, left);
    assert_eq!(large.len(), 1);
    let large = use_all(&mut f, large);
    free_all(&mut f, large);
    assert_eq!(f.queue.stats().quarantined, 0);
    f.stop();
}
