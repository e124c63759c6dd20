use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[test]
fn an_id_works_once() {
    let mut table = Inflight::new(4);
    let id = table.insert("a").unwrap();
    assert_eq!(table.take(id), Some("a"));
    assert_eq!(table.take(id), None, "answered twice");
    let again = table.insert("b").unwrap();
    assert_eq!(slot_of(id), slot_of(again));
    assert_ne!(id, again, "the slot is the same, the generation is not");
    assert_eq!(table.take(id), None, "an answer to the predecessor");
    assert_eq!(table.take(again), Some("b"));
}

#[test]
fn a_full_table_gives_the_value_back() {
    let mut table = Inflight::new(1);
    table.insert(1).unwrap();
    assert_eq!(table.insert(2), Err(2));
    assert_eq!((table.len(), table.capacity()), (1, 1));
}

#[test]
fn clearing_invalidates_every_id() {
    let mut table = Inflight::new(3);
    let ids: Vec<u64> = (0..3).map(|n| table.insert(n).unwrap()).collect();
    table.clear();
    assert_eq!(table.len(), 0);
    assert!(ids.into_iter().all(|id| table.take(id).is_none()));
    assert!((0..3).all(|n| table.insert(n).is_ok()));
}

#[derive(Clone, Debug)]
enum Step {
    Insert,
    TakeKnown(prop::sample::Index),
    TakeOld(prop::sample::Index),
    TakeForged(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Insert),
        3 => any::<prop::sample::Index>().prop_map(Step::TakeKnown),
        2 => any::<prop::sample::Index>().prop_map(Step::TakeOld),
        // Near misses: a small slot and a small generation.
        2 => (0u64..12, 0u64..6).prop_map(|(slot, generation)| Step::TakeForged(generation << 16 | slot)),
        1 => any::<u64>().prop_map(Step::TakeForged),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn behaves_like_a_map_with_fresh_keys(slots in 1usize..9, steps in steps()) {
        let mut table = Inflight::new(slots);
        let mut model: HashMap<u64, u32> = HashMap::new();
        let mut old: Vec<u64> = Vec::new();
        for (n, step) in (0u32..).zip(steps) {
            match step {
                Step::Insert => match table.insert(n) {
                    Ok(id) => {
                        prop_assert!(!old.contains(&id) && model.insert(id, n).is_none(), "id used twice");
                    }
                    Err(_) => prop_assert_eq!(model.len(), slots),
                },
                Step::TakeKnown(which) if !model.is_empty() => {
                    let id = *which.get(&model.keys().copied().collect::<Vec<_>>());
                    prop_assert_eq!(table.take(id), model.remove(&id));
                    old.push(id);
                }
                Step::TakeOld(which) if !old.is_empty() => prop_assert_eq!(table.take(*which.get(&old)), None),
                Step::TakeForged(id) => {
                    let known = model.remove(&id);
                    prop_assert_eq!(table.get_mut(id).copied(), known);
                    prop_assert_eq!(table.take(id), known);
                    old.extend(known.map(|_| id));
                }
                Step::TakeKnown(_) | Step::TakeOld(_) => {}
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.iter_mut().count(), model.len());
        }
    }
}
