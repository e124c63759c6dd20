//! What the disks of a campaign lie on.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::Result;

/// A kind of images.
pub trait Disks {
    /// What the daemon's configuration must say beside the campaign's own, in sections of its own.
    fn config(&self) -> String {
        String::new()
    }

    /// Makes an image of zeros, in the world's `folder` if it is a file, and says what it is called.
    fn make(&self, folder: &Path, name: &str, bytes: u64) -> Result<String>;

    /// The daemon was killed, and the next is not there yet. Errors: what is wrong with the images then.
    fn killed(&self, folder: &Path) -> Result<()> {
        _ = folder;
        Ok(())
    }

    /// All that is on it, as others see it when the daemon has let it go.
    fn contents(&self, folder: &Path, name: &str) -> Result<Vec<u8>>;
}

/// Files.
#[derive(Clone, Copy, Debug)]
pub struct Files;

impl Disks for Files {
    fn make(&self, folder: &Path, name: &str, bytes: u64) -> Result<String> {
        let path = path(folder, name);
        File::create_new(&path)?.set_len(bytes)?;
        Ok(path.display().to_string())
    }

    fn contents(&self, folder: &Path, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(path(folder, name))?)
    }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.img"))
}
