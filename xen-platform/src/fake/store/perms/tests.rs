use super::*;

const GUEST: Actor = Actor { domain: DomId(5), target: None };

fn permissions(text: &str) -> Permissions {
    Permissions::new(text.split(' ').map(|entry| Permission::parse(entry).unwrap())).unwrap()
}

#[test]
fn owner_entry_and_default() {
    for (text, read, write) in [
        ("n5", true, true),
        ("n0", false, false),
        ("r0", true, false),
        ("w0", false, true),
        ("b0", true, true),
        ("b0 n5", false, false),
        ("n0 r5", true, false),
        ("n0 r6", false, false),
        ("n0 w5 b5", false, true),
    ] {
        let permissions = permissions(text);
        assert_eq!(permissions.allow(&GUEST, Need::Read), read, "{text}");
        assert_eq!(permissions.allow(&GUEST, Need::Write), write, "{text}");
        assert_eq!(permissions.allow(&GUEST, Need::Own), text == "n5", "{text}");
    }
}

#[test]
fn domain_0_may_everything_and_a_target_lends_its_rights() {
    let dom0 = Actor { domain: DomId::DOM0, target: None };
    assert!(permissions("n5").allow(&dom0, Need::Own));
    let model = Actor { domain: DomId(6), target: Some(DomId(5)) };
    assert!(permissions("n5").allow(&model, Need::Own));
    assert!(permissions("n0 r5").allow(&model, Need::Read));
}

#[test]
fn a_guest_owns_what_it_makes() {
    assert_eq!(permissions("n0 b5").inherited(&GUEST), permissions("n5 b5"));
    let dom0 = Actor { domain: DomId::DOM0, target: None };
    assert_eq!(permissions("n5 r0").inherited(&dom0), permissions("n5 r0"));
}

#[test]
fn a_dead_domain_is_forgotten_but_not_as_owner() {
    let mut shared = permissions("n5 r5 b6 r5");
    assert!(shared.forget(DomId(5)));
    assert_eq!(shared, permissions("n5 b6"));
    assert!(!shared.forget(DomId(5)));
}
