//! Which image a device gets: what the toolstack names, unless the configuration says otherwise.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use blkif_proto::keys::{DeviceType, Target, ToolstackBackend};

use crate::{
    config::{Config, DiskConfig},
    sandbox::outside::Outside,
    storage::{Image, ImageError, ImageOptions, nbd, qcow2, rbd},
};

/// What is to be opened, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The image.
    pub source: Source,
    /// How to open it.
    pub options: ImageOptions,
    /// The settings that applied.
    pub settings: DiskConfig,
}

/// Where the sectors come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or block device.
    Path(PathBuf),
    /// A file in a format of its own.
    Format(Format, PathBuf),
    /// An export of an NBD server, by its URI.
    Nbd(String),
    /// An image of a Ceph cluster.
    Rbd(Box<rbd::Name>),
    /// Nowhere: a null disk of so many bytes.
    Null(u64),
    /// There is no medium in the drive.
    Empty,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Path(path) => path.display().fmt(f),
            Source::Format(Format::Qcow2, path) => write!(f, "qcow2:{}", path.display()),
            Source::Format(Format::Vmdk, path) => write!(f, "vmdk:{}", path.display()),
            Source::Nbd(uri) => f.write_str(uri),
            Source::Rbd(image) => image.fmt(f),
            Source::Null(bytes) => write!(f, "null:{bytes}"),
            Source::Empty => f.write_str(EMPTY),
        }
    }
}

/// A format of image files. Which it is has to be said: a guest can write what it likes to the beginning of a raw image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// QEMU's.
    Qcow2,
    /// VMware's, read only.
    Vmdk,
}

/// Why a device has no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No medium is named.
    #[error("params: nothing to serve")]
    Nothing,
    /// The format is not served.
    #[error("params: images of format {0} are not served, only raw, qcow2, vmdk, nbd and rbd")]
    Format(String),
    /// It is no image of a Ceph cluster.
    #[error("params: {0}")]
    Rbd(#[from] rbd::NameError),
    /// A null disk's size cannot be read.
    #[error("params: {0:?} is no size: digits, and K, M, G or T")]
    Size(String),
}

/// True for a drive whose medium can be changed.
pub fn is_removable(record: &ToolstackBackend) -> bool {
    record.removable || record.device_type == DeviceType::Cdrom
}

/// Chooses the image of the device numbered `device`.
pub fn choose(record: &ToolstackBackend, device: &str, config: &Config) -> Result<Choice, ChoiceError> {
    let settings = config.disk(record.frontend_id, device, record.dev.as_deref());
    let named = match (&settings.image, &record.physical_device_path, record.target()) {
        (Some(image), ..) => source(image),
        // What the script found out counts more than what it was told.
        (None, Some(path), _) => source(path),
        (None, None, Some(Target { format: None | Some("aio" | "raw"), path })) => source(path),
        (None, None, Some(Target { format: Some(format), path })) => source(&format!("{format}:{path}")),
        (None, None, None) => Err(ChoiceError::Nothing),
    };
    let source = match named {
        Err(ChoiceError::Nothing) if record.device_type == DeviceType::Cdrom => Source::Empty,
        named => named?,
    };
    let options = ImageOptions {
        read_only: settings.read_only.unwrap_or(false) || !record.writable,
        direct_io: settings.direct_io.unwrap_or(false),
        discard: config.offer.discard && record.discard_enable,
        sector_size: settings.sector_size.unwrap_or(512),
        shared: settings.shared.unwrap_or(record.shared),
        writer: device
            .parse()
            .ok()
            .map(|device: u32| u64::from(record.frontend_id) << 32 | u64::from(device)),
    };
    Ok(Choice { source, options, settings })
}

impl Choice {
    /// Opens it with the help of the `outside`, or in one of the `clusters`. May block.
    pub fn open(&self, outside: &Arc<dyn Outside>, clusters: &rbd::Clusters) -> Result<Image, ImageError> {
        match &self.source {
            Source::Path(path) => Image::open_by(&**outside, path, &self.options),
            Source::Null(bytes) => Image::null(*bytes, &self.options),
            Source::Empty => Ok(Image::empty(&self.options)),
            Source::Format(Format::Qcow2, path) => qcow2::open(&**outside, path, &self.options),
            Source::Format(Format::Vmdk, path) => qcow2::open_vmdk(&**outside, path, &self.options),
            Source::Nbd(uri) => nbd::open(outside, uri, &self.options, self.settings.patience()),
            Source::Rbd(name) => clusters.open(name, &self.options),
        }
    }

    /// How long what an earlier daemon has begun may still be under way where nothing says when it is done.
    pub fn settle(&self) -> Duration {
        match self.source {
            Source::Nbd(_) => self.settings.patience().settle,
            _ => Duration::ZERO,
        }
    }
}

/// An empty drive. For a CD nothing at all means the same; other disks that name nothing are mistakes.
pub const EMPTY: &str = "empty:";
/// How URIs of NBD exports begin.
const NBD_SCHEMES: [&str; 4] = ["nbd://", "nbds://", "nbd+unix://", "nbds+unix://"];
/// Formats that toolstacks know, and nobody here.
const OTHER_FORMATS: [&str; 5] = ["qcow", "vhd", "vhdx", "qed", "vdi"];

/// An image's path: `raw:` and `aio:` may stand in front of it, also where the toolstack hands targets over as they are.
pub(crate) fn path_of(text: &str) -> &str {
    text.strip_prefix("raw:").or_else(|| text.strip_prefix("aio:")).unwrap_or(text)
}

/// The URI of an NBD export, if the text names one: `nbd:` may stand in front of it.
pub(crate) fn nbd_of(text: &str) -> Option<&str> {
    if NBD_SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
        return Some(text);
    }
    text.strip_prefix("nbd:").filter(|uri| !uri.is_empty())
}

/// What a toolstack's or configuration's text names.
pub fn source(text: &str) -> Result<Source, ChoiceError> {
    if text == EMPTY {
        return Ok(Source::Empty);
    }
    if let Some(size) = text.strip_prefix("null:") {
        return bytes(size).map(Source::Null).ok_or_else(|| ChoiceError::Size(size.to_owned()));
    }
    let named = |prefix| text.strip_prefix(prefix).filter(|rest: &&str| !rest.is_empty());
    for (prefix, format) in [("qcow2:", Format::Qcow2), ("vmdk:", Format::Vmdk)] {
        if let Some(path) = named(prefix) {
            return Ok(Source::Format(format, path.into()));
        }
    }
    if let Some(rest) = named("rbd:") {
        return Ok(Source::Rbd(Box::new(rbd::Name::parse(rest)?)));
    }
    if let Some(uri) = nbd_of(text) {
        return Ok(Source::Nbd(uri.to_owned()));
    }
    for other in OTHER_FORMATS {
        if text.strip_prefix(other).is_some_and(|rest| rest.starts_with(':')) {
            return Err(ChoiceError::Format(other.to_owned()));
        }
    }
    let path = path_of(text);
    if path.is_empty() { Err(ChoiceError::Nothing) } else { Ok(Source::Path(Path::new(path).to_owned())) }
}

/// Bytes of a size such as `1G`, at most half of what 64 bits hold.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| i64::try_from(*bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ToolstackBackend {
        let keys =
            [("frontend", "/f"), ("frontend-id", "3"), ("mode", "w"), ("online", "1"), ("dev", "xvda")];
        let find = |key: &str| keys.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        ToolstackBackend::parse(find).unwrap()
    }

    fn chosen(params: &str, kind: &str) -> Result<Source, ChoiceError> {
        let record = ToolstackBackend { params: Some(params.into()), kind: Some(kind.into()), ..record() };
        choose(&record, "51712", &Config::default()).map(|choice| choice.source)
    }

    #[test]
    fn paths_with_and_without_a_format() {
        let path = Ok(Source::Path("/a".into()));
        assert_eq!(chosen("/a", "phy"), path);
        assert_eq!(chosen("aio:/a", "vbd3"), path);
        assert_eq!(chosen("raw:/a", "qdisk"), path);
        assert_eq!(chosen("raw:/a", "phy"), path);
        for kind in ["phy", "vbd3"] {
            assert_eq!(chosen("vhd:/a", kind), Err(ChoiceError::Format("vhd".into())));
        }
        assert_eq!(chosen("aio:", "vbd3"), Err(ChoiceError::Nothing));
        assert_eq!(choose(&record(), "51712", &Config::default()).unwrap_err(), ChoiceError::Nothing);
    }

    #[test]
    fn what_is_no_plain_file_is_named() {
        for kind in ["phy", "vbd3", "qdisk"] {
            let chosen = |text| chosen(text, kind).unwrap();
            assert_eq!(chosen("qcow2:/a:b"), Source::Format(Format::Qcow2, "/a:b".into()));
            assert_eq!(chosen("vmdk:/a"), Source::Format(Format::Vmdk, "/a".into()));
            assert_eq!(chosen("nbd://h:1/x"), Source::Nbd("nbd://h:1/x".into()));
            assert_eq!(chosen("nbd+unix:///x?socket=/s"), Source::Nbd("nbd+unix:///x?socket=/s".into()));
            assert_eq!(chosen("nbd:nbds://h"), Source::Nbd("nbds://h".into()));
            assert!(matches!(chosen("rbd:pool/a@s:id=me"), Source::Rbd(name) if name.image == "a"));
        }
    }

    #[test]
    fn null_disks_have_a_size() {
        assert_eq!(chosen("null:1G", "phy"), Ok(Source::Null(1 << 30)));
        assert_eq!(chosen("aio:null:512", "vbd3"), Ok(Source::Null(512)));
        for bad in ["", "G", "1X", "-1", "9999999999T", "1GG"] {
            assert_eq!(chosen(&format!("null:{bad}"), "phy"), Err(ChoiceError::Size(bad.into())));
        }
    }

    #[test]
    fn the_script_and_the_configuration_come_first() {
        let mut record = ToolstackBackend { params: Some("/a".into()), ..record() };
        record.physical_device_path = Some("/dev/x".into());
        let text = "[disks.\"3/xvda\"]\nimage = \"/c\"\nread-only = true\n";
        let config = Config::parse(text, Path::new("c")).unwrap();
        let choice = choose(&record, "51712", &config).unwrap();
        assert_eq!((choice.source, choice.options.read_only), (Source::Path("/c".into()), true));
        let choice = choose(&record, "51712", &Config::default()).unwrap();
        assert_eq!((choice.source, choice.options.read_only), (Source::Path("/dev/x".into()), false));
        record.writable = false;
        assert!(choose(&record, "51712", &Config::default()).unwrap().options.read_only);
    }
}
