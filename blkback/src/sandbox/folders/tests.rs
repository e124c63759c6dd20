use std::{fs, os::unix::fs::symlink};

use nix::unistd::mkfifo;

use super::*;

/// A folder `in` with images, and what must not be reached beside it.
struct Bench {
    root: tempfile::TempDir,
    folders: Folders,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("in/deep")).unwrap();
        fs::create_dir(at("inside")).unwrap();
        for name in ["in/a", "in/deep/b", "inside/c", "secret"] {
            fs::write(at(name), name).unwrap();
        }
        let folders = Folders::new([at("in")]);
        Self { root, folders }
    }

    fn open(&self, name: &str) -> Result<String, Errno> {
        open_as_text(&self.folders, &self.root.path().join(name))
    }

    fn link(&self, name: &str, to: impl AsRef<Path>) {
        symlink(to, self.root.path().join(name)).unwrap();
    }
}

fn open_as_text(folders: &Folders, path: &Path) -> Result<String, Errno> {
    let file = folders.open(path, How::default());
    let file = file.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))?;
    Ok(io::read_to_string(file).unwrap())
}

#[test]
fn images_are_opened_within_the_folders() {
    let bench = Bench::new();
    assert_eq!(bench.open("in/a"), Ok("in/a".into()));
    assert_eq!(bench.open("in//deep/./b"), Ok("in/deep/b".into()));
    assert_eq!(bench.open("in/missing"), Err(Errno::ENOENT));
    let how = How { write: true, direct: false };
    let path = bench.root.path().join("in/a");
    std::io::Write::write_all(&mut bench.folders.open(&path, how).unwrap(), b"out").unwrap();
    assert_eq!(bench.open("in/a"), Ok("outa".into()));
}

#[test]
fn a_path_does_not_lead_out_of_the_folders() {
    let bench = Bench::new();
    for name in ["secret", "inside/c", "in/../secret", "in/deep/../../secret", "in/deep/../a"] {
        assert_eq!(bench.open(name), Err(Errno::EXDEV), "{name}");
    }
    assert_eq!(open_as_text(&bench.folders, Path::new("in/a")), Err(Errno::EXDEV), "not absolute");
    assert_eq!(
        open_as_text(&Folders::default(), &bench.root.path().join("in/a")),
        Err(Errno::EXDEV),
        "no folders"
    );
}

#[test]
fn a_link_does_not_lead_out_of_the_folders() {
    let bench = Bench::new();
    bench.link("in/within", "deep/b");
    assert_eq!(bench.open("in/within"), Ok("in/deep/b".into()));
    bench.link("in/out", "../secret");
    bench.link("in/absolute", bench.root.path().join("in/a"));
    bench.link("in/folder", "..");
    bench.link("in/magic", "/proc/self/root");
    for name in ["in/out", "in/absolute", "in/folder/secret", "in/magic/etc/passwd"] {
        assert_eq!(bench.open(name), Err(Errno::EXDEV), "{name}");
    }
}

#[test]
fn what_is_no_image_is_not_opened() {
    let bench = Bench::new();
    mkfifo(&bench.root.path().join("in/fifo"), Mode::S_IRWXU).unwrap();
    for name in ["in/fifo", "in/deep"] {
        assert_eq!(bench.open(name), Err(Errno::ENOTBLK), "{name}");
    }
    assert_eq!(open_as_text(&Folders::new(["/dev".into()]), Path::new("/dev/zero")), Err(Errno::ENOTBLK));
}

#[test]
fn what_is_named_as_a_whole_may_be_a_link() {
    let mut bench = Bench::new();
    bench.link("volume", "secret");
    assert_eq!(bench.open("volume"), Err(Errno::EXDEV));
    bench.folders = Folders::new([bench.root.path().join("volume")]);
    assert_eq!(bench.open("volume"), Ok("secret".into()));
    assert_eq!(bench.open("secret"), Err(Errno::EXDEV));
}

#[test]
fn volumes_are_links_within_dev() {
    let at = |folder: &str, path: &'static str| {
        let folders = Folders::new([folder.into()]);
        let (base, rest, how) = folders.place_of(Path::new(path))?;
        Some((base.to_owned(), rest.to_owned(), how))
    };
    let beneath = ResolveFlag::RESOLVE_BENEATH;
    assert_eq!(at("/dev/vg0", "/dev/vg0/disk"), Some(("/dev".into(), "vg0/disk".into(), beneath)));
    assert_eq!(at("/dev/vg0", "/dev/sda"), None);
    assert_eq!(at("/srv", "/srv/a/b"), Some(("/srv".into(), "a/b".into(), beneath)));
    assert_eq!(at("/", "/srv/a"), Some(("/".into(), "srv/a".into(), ResolveFlag::RESOLVE_IN_ROOT)));
}
