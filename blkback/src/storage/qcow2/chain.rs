//! An image and what it is based on, opened: each file by the keeper, in the folders for images, and locked; no name is followed that
//! has not been judged here.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use futures_util::FutureExt as _;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, qcow2::Qcow2, raw::Raw, vmdk::Vmdk,
};

use super::{
    gate::Extents,
    header::Header,
    layer::{Layer, file, measure},
    order::Order,
};
use crate::{
    sandbox::outside::{How, Outside},
    storage::{FileId, Image, ImageError, ImageOptions},
};

/// Files in a chain at most, the image among them.
pub(super) const FILES_MAX: usize = 32;

/// The files of an image, the one that is served first, and what they are.
#[derive(Debug)]
pub(super) struct Chain {
    links: Vec<Link>,
    writable: bool,
    /// Of the first file, if it is written to.
    pub(super) order: Option<Arc<Order>>,
}

#[derive(Debug)]
struct Link {
    layer: Layer,
    /// None for a raw one.
    header: Option<Header>,
}

/// A chain while it is opened.
struct Opening<'a> {
    outside: &'a dyn Outside,
    options: &'a ImageOptions,
    /// By name and file, the first first.
    way: Vec<(PathBuf, Option<FileId>)>,
}

impl Chain {
    /// Opens a qcow2 image and all files it is based on. Also says which file is locked for it.
    pub(super) fn open(
        outside: &dyn Outside,
        path: &Path,
        options: &ImageOptions,
    ) -> Result<(Self, FileId), ImageError> {
        let mut opening = Opening { outside, options, way: Vec::new() };
        let mut links = Vec::new();
        let mut order = None;
        let mut next = Some((path.to_owned(), true));
        while let Some((path, is_qcow2)) = next.take() {
            let image = opening.file(&path)?;
            let header = is_qcow2.then(|| opening.header(&image)).transpose()?;
            if links.is_empty() && !options.read_only {
                order = header.as_ref().map(|header| Arc::new(Order::new(header)));
            }
            if let Some((name, format)) = header.as_ref().and_then(|header| header.backing.clone()) {
                next = Some(opening.backing(&path, &name, format.as_deref())?);
            }
            let layer = Layer::new(image, order.clone().filter(|_| links.is_empty()));
            let layer = layer.map_err(|error| opening.refuse(format!("it cannot be measured: {error}")))?;
            links.push(Link { layer, header });
        }
        let file = opening.way.first().and_then(|(_, file)| *file);
        let file = file.ok_or_else(|| opening.refuse("it is no file"))?;
        Ok((Self { links, writable: !options.read_only, order }, file))
    }

    /// What the first file's header said when it was opened.
    pub(super) fn header(&self) -> Option<&Header> {
        self.links.first()?.header.as_ref()
    }

    /// The first file.
    pub(super) fn top(&self) -> Option<&Layer> {
        self.links.first().map(|link| &link.layer)
    }

    /// True when there is something below the first file.
    pub(super) fn is_based(&self) -> bool {
        self.links.len() > 1
    }

    /// The library's view of it. May block. Errors: a table is nonsense.
    pub(super) fn access(&self) -> io::Result<FormatAccess<Layer>> {
        let mut below = None;
        for (index, Link { layer, header }) in self.links.iter().enumerate().rev() {
            let layer = layer.clone();
            below = Some(if header.is_some() {
                let builder =
                    Qcow2::<Layer>::builder(layer).write(self.writable && index == 0).backing(below);
                at_once(builder.data_file(None).open(DenyImplicitOpenGate::default()))
                    .map(FormatAccess::new)?
            } else {
                at_once(Raw::open_image(layer, false)).map(FormatAccess::new)?
            });
        }
        below.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// Opens a VMDK image, which is a text, and its extents.
pub(super) fn open_vmdk(
    outside: &dyn Outside,
    path: &Path,
    options: &ImageOptions,
) -> Result<(FormatAccess<Layer>, FileId), ImageError> {
    let opened = || {
        let file = outside.open(path, How::default())?;
        let id = FileId::of(&file)?;
        let layer = Layer::small(file, path.to_owned())?;
        let vmdk = at_once(Vmdk::<Layer>::builder(layer).open(Extents::new(outside, options)))?;
        Ok((FormatAccess::new(vmdk), id))
    };
    opened().map_err(|error: io::Error| ImageError::Driver { name: path.to_owned(), why: error.to_string() })
}

/// The outcome of what never waits: all storage below blocks.
pub(super) fn at_once<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    future.now_or_never().unwrap_or_else(|| Err(io::Error::other("the library waits for itself")))
}

impl Opening<'_> {
    /// Opens and locks the next file: as the options say if it is the first, else to be read only.
    fn file(&mut self, path: &Path) -> Result<Image, ImageError> {
        let first = self.way.is_empty();
        self.way.push((path.to_owned(), None));
        if self.way.len() > FILES_MAX {
            return Err(self.refuse(format!("it is based on more than {} files", FILES_MAX - 1)));
        }
        let options = if first {
            self.options.clone()
        } else {
            ImageOptions { read_only: true, shared: false, writer: None, ..self.options.clone() }
        };
        let opened = Image::open_by(self.outside, path, &options).map_err(|error| match error {
            ImageError::Locked { file, .. } if self.way.iter().any(|(_, known)| *known == Some(file)) => {
                self.circle()
            }
            ImageError::Locked { .. } => error,
            // Its own word names the file.
            error if first => error,
            error => self.refuse(error.to_string()),
        })?;
        let file = opened.file_id();
        if self.way.iter().any(|(_, known)| known.is_some() && *known == file) {
            return Err(self.circle());
        }
        if let Some((_, id)) = self.way.last_mut() {
            *id = file;
        }
        Ok(opened)
    }

    fn header(&self, image: &Image) -> Result<Header, ImageError> {
        let read = |image| {
            let file = file(image)?;
            Header::read(file, measure(file)?)
        };
        read(image).map_err(|why| self.refuse(why.to_string()))
    }

    /// Where the file is that `path` is based on, and whether it is a qcow2 one.
    fn backing(&self, path: &Path, name: &str, format: Option<&str>) -> Result<(PathBuf, bool), ImageError> {
        let is_qcow2 = match format {
            Some("qcow2") => true,
            Some("raw" | "file" | "host_device") => false,
            Some(other) => {
                return Err(
                    self.refuse(format!("its backing file is of format {other:?}; raw and qcow2 are served"))
                );
            }
            None => {
                let why =
                    "it does not say of which format its backing file is (`qemu-img rebase -u -F FORMAT`)";
                return Err(self.refuse(why));
            }
        };
        let plain = name.strip_prefix("file:").unwrap_or(name);
        if plain.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err(self.refuse(format!("its backing file {name:?} is none")));
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        Ok((plainly(&folder.join(plain)), is_qcow2))
    }

    fn circle(&self) -> ImageError {
        self.refuse("its backing file is in the chain already")
    }

    /// Why the last file is not served, with the way to it.
    fn refuse(&self, why: impl Into<String>) -> ImageError {
        let mut names = self.way.iter().map(|(path, _)| path.display().to_string());
        let name = PathBuf::from(names.next().unwrap_or_default());
        let mut why = why.into();
        let based: Vec<_> = names.collect();
        if !based.is_empty() {
            why = format!("it is based on {}: {why}", based.join(", that on "));
        }
        ImageError::Driver { name, why }
    }
}

/// Without `.` and `..`, which the keeper does not follow.
fn plainly(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = plain.pop(),
            other => plain.push(other),
        }
    }
    plain
}
