use super::*;

const END: End = (DomId(1), Port(1));

/// Deliveries, spurious events, refused maps and late arrivals.
type History = (Vec<Delivery>, Vec<Option<usize>>, Vec<bool>, Vec<Vec<End>>);

fn history(seed: u64, faults: Faults) -> History {
    let mut luck = Luck::new(seed);
    luck.set(faults);
    let mut history = History::default();
    for _ in 0..200 {
        luck.step();
        history.0.push(luck.delivery(END));
        history.1.push(luck.spurious(5));
        history.2.push(luck.refuses(END.0));
        history.3.push(luck.due(false));
    }
    history.3.push(luck.due(true));
    history
}

const ALL: Faults =
    Faults { lost_events: 100, late_events: 200, spurious_events: 300, refused_maps: 400, dies: None };

#[test]
fn the_same_seed_is_the_same_history() {
    assert_eq!(history(7, ALL), history(7, ALL));
    assert_ne!(history(7, ALL), history(8, ALL));
}

#[test]
fn faults_strike_about_as_often_as_asked() {
    let (deliveries, spurious, refused, _) = history(3, ALL);
    let lost = deliveries.iter().filter(|delivery| **delivery == Delivery::Never).count();
    let late = deliveries.iter().filter(|delivery| **delivery == Delivery::Later).count();
    assert!((5..40).contains(&lost), "{lost}");
    assert!((15..65).contains(&late), "{late}");
    assert!((35..90).contains(&spurious.iter().flatten().count()));
    assert!(spurious.iter().flatten().all(|index| *index < 5));
    assert!((50..115).contains(&refused.iter().filter(|refused| **refused).count()));
}

#[test]
fn late_events_arrive_once() {
    let (deliveries, _, _, arrived) = history(3, ALL);
    let late = deliveries.iter().filter(|delivery| **delivery == Delivery::Later).count();
    assert_eq!(arrived.iter().flatten().count(), late);
}

#[test]
fn nothing_strikes_unasked() {
    let (deliveries, spurious, refused, arrived) = history(3, Faults::default());
    assert!(deliveries.iter().all(|delivery| *delivery == Delivery::Now));
    assert!(spurious.iter().all(Option::is_none));
    assert!(!refused.contains(&true));
    assert!(arrived.iter().all(Vec::is_empty));
}

#[test]
fn a_domain_dies_once_and_on_time() {
    let mut luck = Luck::new(1);
    luck.set(Faults { dies: Some((DomId(4), 3)), ..Faults::default() });
    let deaths: Vec<Option<DomId>> = (0..5).map(|_| luck.step()).collect();
    assert_eq!(deaths, [None, None, Some(DomId(4)), None, None]);
    assert_eq!(luck.struck(), [Fault::Died(DomId(4))]);
}
