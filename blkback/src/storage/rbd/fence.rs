//! Whose image it is: clients of a dead daemon are kept out of the cluster before anything is written, and the image's exclusive lock is
//! taken for as long as it is open.
//!
//! Keeping a client out is what fences here: the kernel ends a dead process' connections, and an OSD goes on with what has arrived.
//! Whoever comes with a later map of the cluster, as we do, makes it refuse that. The lock alone says who may write, not who has
//! finished writing.

use std::path::Path;

use nix::errno::Errno;
use tracing::{info, warn};

use super::{ffi::Rbd, record::Known};

/// Why an image is not ours.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody has it: who, for people.
    Held(String),
    /// What could not be done.
    Failed(&'static str, Errno),
}

/// Keeps earlier daemons' clients of the image out, and takes its lock unless it is `shared`: librbd then passes it from writer to
/// writer by itself.
pub(super) fn take(rbd: &Rbd, records: Option<&Path>, image: &str, shared: bool) -> Result<(), Refusal> {
    let failed = |what| move |errno| Refusal::Failed(what, errno);
    let known = records.map_or_else(Vec::new, |folder| Known::all(folder).unwrap_or_default());
    let dead: Vec<&Known> = known.iter().filter(|known| !known.alive && known.image == image).collect();
    for client in &dead {
        info!(image, client = client.address, "keeping a dead daemon's client out of the cluster");
        rbd.cluster().keep_out(&client.address).map_err(failed(
            "cannot keep a dead daemon's client out of the cluster (its own client needs mon 'profile rbd')",
        ))?;
    }
    if !shared && rbd.has_lock().map_err(failed("cannot ask for its features"))? {
        lock(rbd, &known, &dead)?;
    } else if !shared {
        warn!(image, "the image has no exclusive lock: nothing keeps two guests from writing to it");
    }
    dead.iter().for_each(|client| client.forget());
    Ok(())
}

fn lock(rbd: &Rbd, known: &[Known], dead: &[&Known]) -> Result<(), Refusal> {
    let asked = |errno| Refusal::Failed("cannot ask who has its lock", errno);
    if let Some(owner) = rbd.owner().map_err(asked)? {
        if dead.iter().any(|client| client.address == owner) {
            match rbd.break_lock(&owner) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => {
                    return Err(Refusal::Failed("cannot take its lock from a dead daemon's client", errno));
                }
            }
        } else if rbd.watchers().map_err(asked)?.contains(&owner) {
            // One that is gone for good watches no more, and librbd takes the lock from it.
            return Err(Refusal::Held(holder(&owner, known)));
        }
    }
    match rbd.lock() {
        Err(Errno::EROFS | Errno::EBUSY | Errno::EAGAIN) => {
            let owner = rbd.owner().map_err(asked)?;
            Err(Refusal::Held(owner.map_or_else(|| "another client".into(), |owner| holder(&owner, known))))
        }
        locked => locked.map_err(|errno| Refusal::Failed("cannot take its lock", errno)),
    }
}

fn holder(owner: &str, known: &[Known]) -> String {
    let ours = known.iter().find(|known| known.address == owner);
    ours.map_or_else(|| format!("the client at {owner}"), |known| known.disk.clone())
}
