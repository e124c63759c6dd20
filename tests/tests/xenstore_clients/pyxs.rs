//! PyPI's `pyxs`; what it does is in `pyxs_client.py`.

use crate::*;

/// A Python that has `pyxs`: the one that `BLKIF_PY` names, or `python3`.
fn python() -> String {
    let python = std::env::var("BLKIF_PY").unwrap_or_else(|_| "python3".into());
    let has_it =
        Command::new(&python).args(["-c", "import pyxs"]).output().is_ok_and(|out| out.status.success());
    assert!(has_it, "{python} has no pyxs: run `tests/run setup`, and set BLKIF_PY to the Python it made");
    python
}

fn run(served: &Served, case: &str) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/xenstore_clients/pyxs_client.py");
    let output = served.command(&python()).arg(script).arg(case).output().unwrap();
    assert_eq!(printed(&output), format!("{case} ok\n"));
}

#[test]
fn nodes_and_errors() {
    let mut served = Served::new();
    run(&served, "nodes");
    assert_eq!(served.get("/py/b").as_deref(), Ok("2"));
}

#[test]
fn permissions() {
    let served = Served::new();
    served.store.introduce(DomId(7));
    run(&served, "permissions");
    let mut guest = served.store.connect(DomId(7)).unwrap();
    assert_eq!(xen_platform::Store::read(&mut guest, "/py/shared").as_deref(), Ok(&b"x"[..]));
    assert!(xen_platform::Store::read(&mut guest, "/py/private").is_err());
}

#[test]
fn transactions() {
    let mut served = Served::new();
    run(&served, "transactions");
    assert_eq!(served.get("/py/counter").as_deref(), Ok("100"));
}

#[test]
fn watches() {
    run(&Served::new(), "watches");
}

#[test]
fn domains() {
    let served = Served::new();
    run(&served, "domains");
    assert!(served.store.is_introduced(DomId(9)));
}
