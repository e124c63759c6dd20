//! The file behind a disk, seen from outside, and bytes to tell sectors apart by.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::world::Disk;

/// A sparse file.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    _dir: Option<TempDir>,
}

impl Image {
    /// Makes a file of `bytes` bytes.
    pub fn create(path: PathBuf, bytes: u64) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        file.set_len(bytes)?;
        Ok(Self { path, file, _dir: None })
    }

    /// Makes a file of `bytes` bytes on a medium: beside this program, as folders for temporary files are often in memory.
    pub fn on_medium(bytes: u64) -> Result<Self> {
        let program = std::env::current_exe()?;
        let dir = tempfile::tempdir_in(program.parent().context("no folder")?)?;
        let image = Self::create(dir.path().join("disk.img"), bytes)?;
        Ok(Self { _dir: Some(dir), ..image })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The guest's first disk, on this file.
    pub fn disk(&self) -> Disk {
        Disk::new(self.path.display().to_string())
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the medium that the file takes.
    pub fn allocated(&self) -> Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// What lies at `sector`, in units of 512 bytes.
    pub fn read(&self, sector: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; bytes];
        self.file.read_exact_at(&mut out, sector * 512)?;
        Ok(out)
    }

    /// Puts bytes at `sector`.
    pub fn write(&self, sector: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.file.write_all_at(bytes, sector * 512)?)
    }
}

/// `bytes` bytes that look like no others: the same for the same `seed`.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend(state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(bytes);
    out
}
