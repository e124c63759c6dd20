//! The daemon is killed again and again under guests with rings of every kind; after each kill `qemu-img` looks at all images.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    kills::{Campaign, Disks, LONGEST},
    world::Binaries,
};

use crate::qemu::check;

const KILLS: u32 = 40;

/// Images over a raw one, with small clusters, so that most writes need new ones.
struct Qcow2;

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.qcow2"))
}

fn qemu_img(words: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new("qemu-img").args(words).current_dir(folder).output().context("qemu-img")?;
    ensure!(output.status.success(), "qemu-img {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Disks for Qcow2 {
    fn make(&self, folder: &Path, name: &str, bytes: u64) -> Result<String> {
        let base = folder.join("base.raw");
        fs::File::create(&base)?.set_len(bytes)?;
        let file = format!("{name}.qcow2");
        let options = "cluster_size=4096";
        qemu_img(
            &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", "-o", options, &file],
            folder,
        )?;
        Ok(format!("qcow2:{}", path(folder, name).display()))
    }

    fn killed(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "qcow2") {
                check(&path);
            }
        }
        Ok(())
    }

    fn contents(&self, folder: &Path, name: &str) -> Result<Vec<u8>> {
        check(&path(folder, name));
        let raw = format!("{name}.raw");
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", &format!("{name}.qcow2"), &raw], folder)?;
        Ok(fs::read(folder.join(raw))?)
    }
}

#[test]
fn kills_lose_nothing_and_leave_sound_images() {
    let campaign = Campaign {
        kills: KILLS,
        seed: 6,
        longest: LONGEST,
        steps: cfg!(debug_assertions),
        binaries: Binaries::build().unwrap(),
    };
    let report = campaign.run(&Qcow2, |_| {}).unwrap();
    println!("{report}");
    assert!(report.again > 0, "no daemon found anything under way");
}
