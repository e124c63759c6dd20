//! What an image of a Ceph cluster is called: `POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:OPTION=VALUE...]`, as QEMU has it after `rbd:`.
//!
//! A backslash takes its meaning from the character that follows: a name may hold any.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

/// An image, and how to reach its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// The pool.
    pub pool: String,
    /// The namespace in it, if not the one without a name.
    pub namespace: Option<String>,
    /// The image.
    pub image: String,
    /// A snapshot of it.
    pub snapshot: Option<String>,
    /// The client, without its `client.`.
    pub id: Option<String>,
    /// The cluster's configuration file.
    pub conf: Option<PathBuf>,
    /// The file with the client's key.
    pub keyring: Option<PathBuf>,
    /// The monitors' addresses.
    pub mon_host: Option<String>,
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part is missing, or there is one too many.
    #[error("rbd:{0}: what is wanted is rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:OPTION=VALUE...]")]
    Form(String),
    /// There is no such option.
    #[error(
        "rbd: no option {0:?}: there are conf, id, keyring and mon_host; others belong into the Ceph configuration"
    )]
    Option(String),
    /// A file that is not named in full.
    #[error("rbd: {option}={}: the path is not absolute, or has .. in it", path.display())]
    Path {
        /// The option.
        option: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

impl Name {
    /// Reads the text after `rbd:`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Form(text.to_owned());
        let mut words = split(text, ':');
        let place = words.next().ok_or_else(wrong)?;
        let mut halves = split(place, '@');
        let mut parts: Vec<String> = split(halves.next().ok_or_else(wrong)?, '/').map(plain).collect();
        let snapshot = halves.next().map(plain);
        let (image, pool) = (parts.pop().ok_or_else(wrong)?, parts.first().cloned().ok_or_else(wrong)?);
        let namespace = parts.get(1).cloned();
        let named = [&pool, &image].into_iter().chain(&namespace).chain(&snapshot);
        if parts.len() > 2 || halves.next().is_some() || named.into_iter().any(String::is_empty) {
            return Err(wrong());
        }
        let mut name = Self { pool, namespace, image, snapshot, ..Self::default() };
        for word in words {
            let (option, value) = word.split_once('=').ok_or_else(|| NameError::Option(word.to_owned()))?;
            let value = plain(value);
            match option {
                "id" => name.id = Some(value),
                "mon_host" => name.mon_host = Some(value),
                "conf" => name.conf = Some(file("conf", value)?),
                "keyring" => name.keyring = Some(file("keyring", value)?),
                other => return Err(NameError::Option(other.to_owned())),
            }
        }
        Ok(name)
    }
}

/// Without its options.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rbd:{}/", self.pool)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.image)?;
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| write!(f, "@{snapshot}"))
    }
}

fn file(option: &'static str, path: String) -> Result<PathBuf, NameError> {
    let path = PathBuf::from(path);
    let plain =
        |path: &Path| path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if plain(&path) { Ok(path) } else { Err(NameError::Path { option, path }) }
}

/// Parts of `text` between characters `at` that no backslash precedes.
fn split(text: &str, at: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let splits = c == at && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
}

/// Without the backslashes.
fn plain(text: impl AsRef<str>) -> String {
    let mut escaped = false;
    let mut keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    text.as_ref().chars().filter(|c| keep(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pool: &str, namespace: Option<&str>, image: &str, snapshot: Option<&str>) -> Name {
        let [namespace, snapshot] = [namespace, snapshot].map(|part| part.map(str::to_owned));
        Name { pool: pool.into(), namespace, image: image.into(), snapshot, ..Name::default() }
    }

    #[test]
    fn names_as_qemu_writes_them() {
        let parsed = |text| Name::parse(text).unwrap();
        assert_eq!(parsed("rbd/img"), name("rbd", None, "img", None));
        assert_eq!(parsed("rbd/ns/img@before"), name("rbd", Some("ns"), "img", Some("before")));
        assert_eq!(parsed(r"a\/b/c\@d\:e\\"), name("a/b", None, r"c@d:e\", None));
        let full =
            parsed(r"rbd/img:id=xen:conf=/etc/ceph/a.conf:mon_host=10.0.0.1\:6789\;10.0.0.2:keyring=/k");
        let mon_host = Some("10.0.0.1:6789;10.0.0.2".to_owned());
        let files = (Some("/etc/ceph/a.conf".into()), Some("/k".into()));
        assert_eq!((full.id.as_deref(), full.mon_host), (Some("xen"), mon_host));
        assert_eq!((full.conf, full.keyring), files);
        assert_eq!(parsed("rbd/ns/img@before:id=x").to_string(), "rbd:rbd/ns/img@before");
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in ["", "img", "rbd/", "/img", "rbd//img", "a/b/c/d", "rbd/img@", "rbd/img@a@b", ":id=x"] {
            assert_eq!(Name::parse(text), Err(NameError::Form(text.into())), "{text}");
        }
        for (text, option) in
            [("id", "id"), ("rbd_cache=true", "rbd_cache"), ("=", ""), ("", ""), ("log_file=/x", "log_file")]
        {
            let refused = Name::parse(&format!("rbd/img:{text}"));
            assert_eq!(refused, Err(NameError::Option(option.into())), "{text}");
        }
        for path in ["ceph.conf", "/etc/../x", ""] {
            let refused = Name::parse(&format!("rbd/img:conf={path}"));
            assert_eq!(refused, Err(NameError::Path { option: "conf", path: path.into() }));
        }
    }
}
