use alloc::vec::Vec;

use super::*;
use crate::page::tests::leaked;

#[test]
fn pages_are_handed_out_in_rows_and_zeroed() {
    let memory = leaked(100);
    memory.part(0, 100 * PAGE_SIZE).unwrap().write(&[0xEE; 100 * PAGE_SIZE]);
    let pool = Pool::new(memory).unwrap();
    let first = pool.take(70).unwrap();
    let second = pool.take(30).unwrap();
    assert_eq!((pool.numbers(&first), pool.numbers(&second)), (Some(0..70), Some(70..100)));
    let mut bytes = [1; 70 * PAGE_SIZE];
    first.mem().read(&mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert!(pool.take(1).is_none() && pool.take(0).is_none());
    pool.give(10..12);
    assert!(pool.take(3).is_none());
    assert_eq!(pool.numbers(&pool.take(2).unwrap()), Some(10..12));
}

#[test]
fn a_row_that_is_too_long_leaves_nothing_taken() {
    let pool = Pool::new(leaked(10)).unwrap();
    pool.take(4).unwrap();
    pool.give(0..3);
    assert!(pool.take(7).is_none() && pool.take(usize::MAX).is_none());
    assert_eq!(pool.numbers(&pool.take(3).unwrap()), Some(0..3));
    assert_eq!(pool.numbers(&pool.take(6).unwrap()), Some(4..10));
}

#[test]
fn pages_of_another_pool_are_not_known() {
    let (ours, theirs) = (Pool::new(leaked(2)).unwrap(), Pool::new(leaked(2)).unwrap());
    assert_eq!(ours.numbers(&theirs.take(1).unwrap()), None);
}

#[test]
fn many_processors_never_get_the_same_page() {
    let pool = Pool::new(leaked(64)).unwrap();
    let owners: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for mark in 1..=4 {
            let (pool, owners) = (&pool, &owners);
            scope.spawn(move || {
                for round in 0..2000 {
                    let Some(numbers) = pool.claim(1 + (round % 9)) else { continue };
                    for number in numbers.clone() {
                        assert_eq!(owners[number].swap(mark, Ordering::Relaxed), 0);
                    }
                    for number in numbers.clone() {
                        assert_eq!(owners[number].swap(0, Ordering::Relaxed), mark);
                    }
                    pool.give(numbers);
                }
            });
        }
    });
    assert_eq!(pool.claim(64), Some(0..64));
}
