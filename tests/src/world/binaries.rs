//! The programs under test, as cargo builds them.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail, ensure};

/// Where the programs are. The default is nowhere: for worlds whose ends all run in threads.
#[derive(Clone, Debug, Default)]
pub struct Binaries {
    /// The backend daemon.
    pub blkback: PathBuf,
    /// What steers it.
    pub blkctl: PathBuf,
    /// The frontend's tool.
    pub blkfront: PathBuf,
}

/// Where this variable points, the programs are found and not built: for a run of many test processes after one build.
const FOLDER: &str = "BLKIF_BINARIES";

impl Binaries {
    /// Builds them with the profile, and into the folder, that this very program was built with; once per process, quickly when
    /// they are up to date, and not at all where `BLKIF_BINARIES` names a folder. Errors: they do not build, or this program
    /// does not lie in a cargo target folder.
    pub fn build() -> Result<Self> {
        static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            match env::var_os(FOLDER) {
                Some(folder) => Self::find(Path::new(&folder)),
                None => Self::make(),
            }
            .map_err(|error| format!("{error:#}"))
        });
        built.clone().map_err(anyhow::Error::msg)
    }

    fn find(folder: &Path) -> Result<Self> {
        let [blkback, blkctl, blkfront] = ["blkback", "blkctl", "blkfront"].map(|name| folder.join(name));
        let found = Self { blkback, blkctl, blkfront };
        for program in [&found.blkback, &found.blkctl, &found.blkfront] {
            ensure!(program.exists(), "{FOLDER}: no {}", program.display());
        }
        Ok(found)
    }

    fn make() -> Result<Self> {
        let us = env::current_exe().context("where is this program?")?;
        let folder = folder_of(&us)
            .with_context(|| format!("{} does not lie in a cargo target folder", us.display()))?;
        let (profile, target) = match (folder.file_name().and_then(|name| name.to_str()), folder.parent()) {
            (Some("debug"), Some(target)) => ("dev", target),
            (Some(profile), Some(target)) => (profile, target),
            _ => bail!("{} does not lie in a cargo target folder", us.display()),
        };
        // Without -p, as the user built us: another choice of packages would choose other features and build everything again.
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--bin", "blkback", "--bin", "blkctl", "--bin", "blkfront"])
            .args(["--profile", profile])
            .arg("--manifest-path")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo to build blkback, blkctl and blkfront")?;
        if !status.success() {
            bail!("blkback, blkctl and blkfront do not build ({status})");
        }
        Self::find(folder)
    }
}

/// The folder of a profile's programs, from the path of a program (`release/xensim`) or of a test (`release/deps/it-0a1b2c`).
fn folder_of(program: &Path) -> Option<&Path> {
    let folder = program.parent()?;
    if folder.ends_with("deps") { folder.parent() } else { Some(folder) }
}

#[cfg(test)]
mod tests;
