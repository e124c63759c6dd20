use std::cell::Cell;

use super::*;

/// Moves by a microsecond whenever it is read.
#[derive(Clone, Default)]
struct Ticking(std::rc::Rc<Cell<u64>>);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        self.0.set(self.0.get() + 1);
        Duration::from_micros(self.0.get())
    }
}

/// A clock that stands still.
#[derive(Clone)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

const LIMIT: Duration = Duration::from_micros(64);

fn looks_in_vain(spinner: &mut Spinner, clock: &impl Clock) -> u32 {
    let mut looks = 0;
    let found = spinner.spin(LIMIT, clock, || {
        looks += 1;
        Ok::<_, ()>(false)
    });
    assert_eq!(found, Ok(false));
    looks
}

#[test]
fn the_budget_shrinks_in_vain_and_grows_with_success() {
    let (mut spinner, clock) = (Spinner { budget: LIMIT, ..Spinner::default() }, Ticking::default());
    let first = looks_in_vain(&mut spinner, &clock);
    let second = looks_in_vain(&mut spinner, &clock);
    assert!(second < first, "{second} looks after {first}");
    for _ in 0..20 {
        looks_in_vain(&mut spinner, &clock);
    }
    assert_eq!(spinner.budget, LIMIT / 16);
    assert_eq!(spinner.spin(LIMIT, &clock, || Ok::<_, ()>(true)), Ok(true));
    assert_eq!(spinner.budget, LIMIT / 8);
    for _ in 0..20 {
        spinner.spin(LIMIT, &clock, || Ok::<_, ()>(true)).unwrap();
    }
    assert_eq!(spinner.budget, LIMIT);
}

#[test]
fn no_limit_means_one_look() {
    let mut looks = 0;
    let found = Spinner::default().spin(Duration::ZERO, &Still, || {
        looks += 1;
        Ok::<_, ()>(false)
    });
    assert_eq!((found, looks), (Ok(false), 1));
}

#[test]
fn a_clock_that_stands_still_ends_the_search_too() {
    let mut spinner = Spinner { budget: LIMIT, ..Spinner::default() };
    assert!(looks_in_vain(&mut spinner, &Still) < 100_000);
}

#[test]
fn an_error_ends_it_at_once() {
    assert_eq!(Spinner::default().spin(LIMIT, &Still, || Err::<bool, _>("broken")), Err("broken"));
}

#[test]
fn looking_is_for_answers_that_come_fast() {
    let mut spinner = Spinner::default();
    let (mut completed, mut now) = (0, Duration::from_secs(1));
    let mut cheaper = |batch: u64, each: Duration| {
        completed += batch;
        now += each * u32::try_from(batch).unwrap();
        spinner.is_cheaper(completed, now)
    };
    // One at a time, thirty-two at a time, slow, and fast again.
    assert!((0..50).all(|_| cheaper(1, SLEEP / 10)));
    assert!((0..50).all(|_| cheaper(32, SLEEP / 2)));
    assert!((0..50).filter(|_| cheaper(1, SLEEP * 2)).count() < 20);
    assert!((0..50).all(|_| !cheaper(8, SLEEP * 2)));
    assert!((0..50).filter(|_| !cheaper(8, SLEEP / 2)).count() < 40);
    assert!((0..50).all(|_| cheaper(8, SLEEP / 2)));
    // One hour without work is one pause, and what brings no answer changes nothing.
    assert!(cheaper(1, Duration::from_secs(3600)));
    assert!((0..50).all(|_| cheaper(0, SLEEP)));
}
