//! What the tool stack asks of a running guest.

use xen_platform::{Change, Store as _, fake};

use super::*;

/// Suspended until the test says in XenStore what became of it.
impl Guest for fake::World {
    fn suspend(&self) -> Result<bool, BootError> {
        let mut store = self.store().unwrap();
        loop {
            match store.read("restored").as_deref() {
                Ok(b"yes") => return Ok(true),
                Ok(b"no") => return Ok(false),
                Ok(b"never") => return Err(BootError::Missing("way back")),
                _ => std::thread::yield_now(),
            }
        }
    }
}

/// A guest that does what the line says, and is asked for something after a while. When it has acknowledged that, `then` happens,
/// which may say that it was restored. Whether it went on to a good end, and what it tells.
fn asked(line: &str, word: &str, then: impl FnOnce(&mut Backend)) -> (bool, String) {
    let bed = bed(all_features);
    let home = format!("/local/domain/{}", bed.guest);
    let node = |name: &str| format!("{home}/{name}");
    let (shutdown, mut asked, mut then) = (node("control/shutdown"), false, Some(then));
    let ours = [Permission::new(bed.guest, Rights::None)];
    let made = bed.backend().store.transact(|tree| {
        for name in ["control/shutdown", "control/feature-suspend", "control/feature-poweroff", "restored"] {
            tree.write(&node(name), "")?;
            tree.set_permissions(&node(name), &ours)?;
        }
        Ok(())
    });
    made.unwrap();
    let (done, out) = meanwhile(&bed, line, || {
        let mut backend = bed.backend();
        if !asked && backend.seen.len() >= 20 {
            backend.store.apply(&[Change::Write(&shutdown, word)]).unwrap();
            asked = true;
        } else if asked
            && backend.store.read(&shutdown).unwrap().is_empty()
            && let Some(then) = then.take()
        {
            then(&mut backend);
        }
        drop(backend);
        std::thread::sleep(Duration::from_micros(100));
    });
    assert!(then.is_none(), "not acknowledged: {out}");
    assert_eq!(bed.backend().store.read(&node("control/feature-suspend")).unwrap(), b"1");
    (done, out)
}

/// What became of a guest that is suspended.
fn became(backend: &mut Backend, word: &str) {
    let home = home_of(backend);
    backend.store.apply(&[Change::Write(&format!("{home}/restored"), word)]).unwrap();
}

/// The guest's directory, of whose number the backend's has one part.
fn home_of(backend: &Backend) -> String {
    format!("/local/domain/{}", backend.directory.split('/').nth_back(1).unwrap())
}

#[test]
fn a_guest_that_is_restored_finds_its_disk_again() {
    let (done, out) = asked("soak count=2000 seed=1", "suspend", |backend| {
        // The tool stack makes both directories anew, and nothing of the old connection is left.
        backend.disconnect();
        let state = format!("{}/device/vbd/51712/state", home_of(backend));
        backend.write_state(State::Initialising);
        backend.store.apply(&[Change::Write(&state, "1")]).unwrap();
        became(backend, "yes");
    });
    assert!(done, "{out}");
    let at = |word: &str| out.find(word).unwrap_or_else(|| panic!("no {word}: {out}"));
    let order =
        ["suspended\n", "restored\n", "the backend is gone", "the backend is back", "\nsoaked "].map(at);
    assert!(order.is_sorted(), "{out}");
}

#[test]
fn a_guest_that_goes_on_where_it_was_does_so() {
    let (done, out) = asked("soak count=500 seed=2", "suspend", |backend| became(backend, "no"));
    assert!(done && out.contains("suspended\ngoes on where it was\n"), "{out}");
    assert!(!out.contains("the backend is gone"), "{out}");
}

#[test]
fn a_guest_that_cannot_go_on_says_so() {
    let (done, out) = asked("soak count=500 seed=3", "suspend", |backend| became(backend, "never"));
    assert!(!done && out.contains("failed: suspended: Xen names no way back"), "{out}");
}

#[test]
fn a_guest_that_is_told_to_end_does() {
    let (done, out) = asked("soak runtime=1000 seed=4", "poweroff", |_| ());
    assert!(done && out.contains("told to end: what was begun is finished\nsoaked 1 rounds"), "{out}");
    let (done, out) = asked("soak count=500 seed=5", "reboot", |_| ());
    assert!(done && out.contains("the tool stack asks for reboot, which is not done"), "{out}");
}
