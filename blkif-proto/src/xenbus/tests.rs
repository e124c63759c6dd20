use super::*;

#[test]
fn a_state_is_one_digit() {
    for (number, state) in State::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, number);
        assert_eq!(state.as_str(), number.to_string());
        assert_eq!(State::parse(state.as_str()), Some(state));
    }
    for value in ["", "9", "-1", "+4", " 4", "4 ", "04", "4\0", "four", "99999999999999999999"] {
        assert_eq!(State::parse(value), None, "{value:?}");
        assert_eq!(State::of_node(Some(value)), State::Unknown);
    }
    assert_eq!(State::of_node(None::<&str>), State::Unknown);
    assert_eq!(State::of_node(Some([0xFF_u8, 0x34])), State::Unknown);
}

#[test]
fn the_normal_life_of_both_ends_is_legal() {
    use State::*;
    let legal = |end: End, path: &[State]| path.windows(2).all(|step| end.allows(step[0], step[1]));
    assert!(legal(End::Frontend, &[Initialising, Initialised, Connected, Closing, Closed, Initialising]));
    // Windows closes before it first connects; mini-os skips Initialised; GRUB stays there and then closes at once.
    assert!(legal(End::Frontend, &[Initialising, Closing, Closed, Initialising, Connected]));
    assert!(legal(End::Frontend, &[Initialising, Initialised, Closed, Initialising]));
    assert!(legal(End::Backend, &[Initialising, InitWait, Connected, Connected, Closing, Closed, InitWait]));
    assert!(legal(End::Backend, &[Initialising, InitWait, Connected, InitWait, Connected, Closed]));
}

#[test]
fn no_end_leaves_the_states_that_are_its_own() {
    use State::*;
    for from in State::ALL {
        for to in [Unknown, Reconfiguring, Reconfigured] {
            assert!(!End::Frontend.allows(from, to) && !End::Backend.allows(from, to));
        }
        assert!(!End::Frontend.allows(from, InitWait), "a frontend at InitWait is fatal to Linux");
        assert!(!End::Backend.allows(from, Initialised) && !End::Backend.allows(from, Initialising));
    }
    assert!(!End::Backend.allows(Closed, Closing) && !End::Frontend.allows(Closed, Closing));
    assert!(!End::Backend.allows(Initialising, Connected), "features come first");
    assert!(!End::Frontend.allows(Closed, Connected) && !End::Frontend.allows(Connected, Initialising));
    assert!(State::ALL.into_iter().filter(|state| state.is_served()).eq([Initialised, Connected]));
}
