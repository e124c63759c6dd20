//! Comparing the image with the disk by reading both again.

use std::{fs::File, os::unix::fs::FileExt as _, thread};

use anyhow::{Context as _, anyhow};
use sha2::{Digest as _, Sha256};

use crate::{connect::World, exit::Mismatch, pipe::Pipe, pull::pull};

/// Reads the first `length` bytes of both sides at the same time. The digest, in hexadecimal, if they are equal; else
/// [`Mismatch`].
pub(crate) fn compare<W: World>(image: &File, pipe: &mut Pipe<'_, W>, length: u64) -> anyhow::Result<String> {
    let (of_image, of_disk) = thread::scope(|scope| {
        let image = scope.spawn(|| digest_file(image, length));
        let mut hasher = Sha256::new();
        let read = pull(pipe, 0, length, |_, data| {
            hasher.update(data);
            Ok(())
        });
        let image = image.join().map_err(|_| anyhow!("reading the image failed"));
        anyhow::Ok((image??, read.map(|()| hex(hasher))?))
    })?;
    match of_image == of_disk {
        true => Ok(of_image),
        false => Err(Mismatch { image: of_image, disk: of_disk }.into()),
    }
}

fn digest_file(file: &File, length: u64) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let count = buffer.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..count], at)
            .with_context(|| format!("reading the image at byte {at}"))?;
        hasher.update(&buffer[..count]);
        at += count as u64;
    }
    Ok(hex(hasher))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
