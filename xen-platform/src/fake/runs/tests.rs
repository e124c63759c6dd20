use super::*;
use proptest::prelude::*;

#[test]
fn lowest_fitting_run_first() {
    let mut runs = Runs::all(10);
    assert_eq!(runs.take(4), Some(Run { first: 0, count: 4 }));
    assert_eq!(runs.take(4), Some(Run { first: 4, count: 4 }));
    runs.put(Run { first: 0, count: 4 });
    assert_eq!(runs.take(5), None);
    assert_eq!(runs.take(2), Some(Run { first: 0, count: 2 }));
    assert_eq!(runs.take(0), None);
}

#[test]
fn neighbours_join() {
    let mut runs = Runs::default();
    for first in [2, 0, 1] {
        runs.put(Run { first, count: 1 });
    }
    assert_eq!(runs.iter().collect::<Vec<_>>(), [Run { first: 0, count: 3 }]);
}

proptest! {
    #[test]
    fn nothing_is_handed_out_twice(steps in prop::collection::vec((any::<bool>(), 1u32..9), 0..200)) {
        let mut runs = Runs::all(64);
        let mut out: Vec<Run> = Vec::new();
        for (take, n) in steps {
            if take {
                if let Some(run) = runs.take(n) {
                    prop_assert!(out.iter().all(|o| o.numbers().end <= run.first || run.numbers().end <= o.first));
                    out.push(run);
                }
            } else if !out.is_empty() {
                let run = out.swap_remove(n as usize % out.len());
                runs.put(run);
            }
            prop_assert_eq!(runs.len() + out.iter().map(|r| r.count).sum::<u32>(), 64);
        }
        out.into_iter().for_each(|run| runs.put(run));
        prop_assert_eq!(runs.take(64), Some(Run { first: 0, count: 64 }));
    }
}
