//! The files that a VMDK image names: opened like all others, and of no other kind.

use std::io;

use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions, format::gate::ImplicitOpenGate};

use super::layer::Layer;
use crate::{
    sandbox::outside::Outside,
    storage::{Image, ImageOptions},
};

/// Opens extents, to be read only, and nothing else.
pub(super) struct Extents<'a> {
    outside: &'a dyn Outside,
    options: ImageOptions,
    left: usize,
}

/// Extents of an image at most.
const EXTENTS_MAX: usize = 256;

impl<'a> Extents<'a> {
    /// For an image that is opened with these options.
    pub(super) fn new(outside: &'a dyn Outside, options: &ImageOptions) -> Self {
        let options = ImageOptions { read_only: true, shared: false, writer: None, ..options.clone() };
        Self { outside, options, left: EXTENTS_MAX }
    }
}

impl ImplicitOpenGate<Layer> for Extents<'_> {
    async fn open_format<F: FormatDriverBuilder<Layer>>(
        &mut self,
        _builder: F,
    ) -> io::Result<FormatAccess<Layer>> {
        Err(io::Error::other("it is based on another image"))
    }

    async fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Layer> {
        let Some(name) = options.get_filename() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let Some(left) = self.left.checked_sub(1) else {
            return Err(io::Error::other(format!("it has more than {EXTENTS_MAX} extents")));
        };
        self.left = left;
        let image = Image::open_by(self.outside, name, &self.options).map_err(io::Error::other)?;
        Layer::new(image, None)
    }
}
