//! Disk images made on the spot, and their checksums.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

const CHUNK: usize = 1 << 20;

/// Makes an image as disks are: of four mebibytes two hold data that does not repeat, one zeroes, one is a hole.
pub(crate) fn make_mixed(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut noise = Noise(0x2545_F491_4F6C_DD1D);
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    for number in 0.. {
        let length = usize::try_from((bytes - at).min(CHUNK as u64))?;
        if length == 0 {
            break;
        }
        match number % 4 {
            0 | 1 => {
                noise.fill(&mut chunk);
                file.write_all(&chunk[..length])?;
            }
            2 => {
                chunk.fill(0);
                file.write_all(&chunk[..length])?;
            }
            _ => drop(file.seek(SeekFrom::Current(i64::try_from(length)?))?),
        }
        at += length as u64;
    }
    file.set_len(bytes)?;
    Ok(())
}

/// Makes an image full of data that does not repeat.
pub(crate) fn make_full(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut noise = Noise(0x2545_F491_4F6C_DD1D);
    let mut chunk = vec![0; CHUNK];
    for _ in 0..bytes.div_ceil(CHUNK as u64) {
        noise.fill(&mut chunk);
        file.write_all(&chunk)?;
    }
    file.set_len(bytes)?;
    Ok(())
}

/// Makes an empty, sparse image.
pub(crate) fn make_empty(path: &Path, bytes: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.set_len(bytes)?;
    Ok(())
}

/// Reads a file to its end, so that it lies in the page cache.
pub(crate) fn warm(path: &Path) -> Result<()> {
    digest(path, u64::MAX).map(drop)
}

/// SHA-256 of the first `bytes` bytes, in hexadecimal.
pub(crate) fn digest(path: &Path, bytes: u64) -> Result<String> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut file = file.take(bytes);
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            length => hasher.update(&chunk[..length]),
        }
    }
}

/// Bytes that neither repeat nor compress (xorshift).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}
