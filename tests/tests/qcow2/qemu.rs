//! QEMU's tools, and a folder of images for them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tests::world::Disk;

/// A folder of images, gone on drop.
pub(crate) struct Images(tempfile::TempDir);

/// What `qemu-img check` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Sound,
    /// Clusters are lost, which costs room and nothing else.
    Leaks,
}

impl Images {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a qcow2 image. Without a size it is as large as what it is based on.
    pub(crate) fn create(&self, name: &str, size: &str, options: &[&str]) -> PathBuf {
        let mut words = vec!["create", "-q", "-f", "qcow2"];
        words.extend(options);
        words.push(name);
        words.extend((!size.is_empty()).then_some(size));
        self.qemu_img(&words);
        self.path(name)
    }

    /// Runs `qemu-img` to its success, in the folder. What it said.
    pub(crate) fn qemu_img(&self, words: &[&str]) -> String {
        let output = run(Command::new("qemu-img").args(words).current_dir(self.0.path()));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "qemu-img {words:?}: {said}{complaint}");
        said
    }

    /// Runs commands of `qemu-io` on an image.
    pub(crate) fn qemu_io(&self, name: &str, commands: &[&str]) -> String {
        let mut command = Command::new("qemu-io");
        for text in commands {
            command.args(["-c", text]);
        }
        let output = run(command.arg(name).current_dir(self.0.path()));
        assert!(output.status.success(), "qemu-io {commands:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Judges an image. Panics when anything but leaks is wrong with it.
pub(crate) fn check(image: &Path) -> Health {
    let output = run(Command::new("qemu-img").arg("check").arg(image));
    match output.status.code() {
        Some(0) => Health::Sound,
        Some(3) => Health::Leaks,
        _ => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            panic!("qemu-img check {}: {said}", image.display())
        }
    }
}

/// A disk on a qcow2 image.
pub(crate) fn disk(path: &Path) -> Disk {
    Disk::new(format!("qcow2:{}", path.display()))
}

fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command.output().unwrap_or_else(|error| panic!("{name}: {error}; tests/run setup installs it"))
}
