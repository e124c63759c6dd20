//! What a backend says of its disk (docs/PROTOCOL.md sections 2.3, 4.3 and 8.3).

use anyhow::{Context as _, Result};
use blkif_proto::xenbus::State;
use xen_platform::BackWorld;

use super::PAGE;
use crate::{
    conformance::{
        Clause, ONE_ABI,
        rig::backend::{Backend, Job, Work},
    },
    must,
};

/// For frontends of any kind.
pub(super) fn clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![
        Clause {
            name: "disk.nonsense",
            rule: "A disk's keys that make no sense are refused by name (2.3, 8.3).",
            abis: ONE_ABI,
            check: nonsense,
        },
        Clause {
            name: "disk.missing",
            rule: "A disk without sectors, sector-size or info is refused by the key's name (4.3).",
            abis: ONE_ABI,
            check: missing,
        },
    ]
}

/// For the library, which tells what it has understood.
pub(super) fn library_clauses<W: BackWorld>() -> Vec<Clause<Backend<W>>> {
    vec![Clause {
        name: "disk.as-told",
        rule: "Size, sectors, kind and discard granularity are as the backend tells, or have their defaults (4.3).",
        abis: ONE_ABI,
        check: as_told,
    }]
}

/// Connects to a disk with an odd key, and errors unless the frontend refuses it by that name.
fn refuses<W: BackWorld>(backend: &mut Backend<W>, key: &str, words: &str) -> Result<()> {
    backend.set_state(State::InitWait)?;
    backend.launch(Job::new(Work::reads(1, PAGE)))?;
    let connection = backend.join()?;
    backend.set_state(State::Connected)?;
    let refused = backend.end(connection).and_then(|outcome| outcome.fails_with(key));
    refused.with_context(|| words.to_owned())?;
    let state = backend.frontend_state()?;
    must!(matches!(state, State::Closed | State::Initialising), "{words}: it is {state} then");
    backend.write_frontend("state", "1")
}

fn nonsense<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.publish_disk()?;
    let cases: &[(&str, &[&str])] = &[
        ("sector-size", &["0", "3", "256", "511", "1000", "8192", "65536", "4294967808", "-512", "many"]),
        (
            "sectors",
            &["0", "-1", "9223372036854775808", "18446744073709551615", "18446744073709551616", "1e6"],
        ),
        ("physical-sector-size", &["0", "3", "600", "x"]),
        ("info", &["x", "-1", "4294967296"]),
    ];
    for (key, values) in cases {
        for value in *values {
            backend.write(key, value)?;
            refuses(backend, key, &format!("{key} = {value:?}"))?;
        }
        backend.remove(key)?;
        backend.publish_disk()?;
    }
    // 4096-byte sectors do not fill it.
    backend.write("sector-size", "4096")?;
    backend.write("sectors", "8191")?;
    refuses(backend, "sectors", "8191 sectors of 512 bytes with sector-size 4096")
}

fn missing<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    for key in ["sectors", "sector-size", "info"] {
        backend.publish_disk()?;
        for absent in [true, false] {
            if absent {
                backend.remove(key)?;
            } else {
                backend.write(key, "")?;
            }
            refuses(backend, key, &format!("without {key}"))?;
        }
    }
    Ok(())
}

fn as_told<W: BackWorld>(backend: &mut Backend<W>) -> Result<()> {
    backend.disk_key("sector-size", "4096");
    backend.disk_key("info", "7");
    backend.offer(&[("feature-discard", "1")])?;
    let connection = backend.connect(Job::new([]))?;
    let told = backend.finish(connection)?.ok()?.capabilities.context("nothing")?;
    let kind = (told.cdrom, told.removable, told.read_only);
    must!(kind == (true, true, true), "CD, removable, read-only: {kind:?}, with info = 7");
    let sizes = (told.sectors, told.sector_size, told.physical_sector_size, told.alignment);
    must!(sizes == (8192, 4096, 4096, 4096), "{told:?}");
    let discard = told.discard.context("no discard")?;
    must!((discard.granularity, discard.alignment, discard.secure) == (4096, 0, false), "{discard:?}");

    backend.disk_key("physical-sector-size", "16384");
    backend.offer(&[
        ("discard-granularity", "65536"),
        ("discard-alignment", "512"),
        ("discard-secure", "1"),
    ])?;
    backend.offer(&[("feature-flush-cache", "1")])?;
    let connection = backend.connect(Job::new([]))?;
    let told = backend.finish(connection)?.ok()?.capabilities.context("nothing")?;
    must!(told.physical_sector_size == 16384 && told.flush && !told.barrier, "{told:?}");
    let discard = told.discard.context("no discard")?;
    must!((discard.granularity, discard.alignment, discard.secure) == (65536, 512, true), "{discard:?}");
    Ok(())
}
