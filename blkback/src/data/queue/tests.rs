use super::*;
use crate::storage::ImageOptions;

/// A process that is killed with direct I/O under way on a guest's pages leaves dom0's kernel damaged: only who asks for
/// `direct` by name gets that.
#[test]
fn direct_io_reaches_guests_pages_by_name_only() {
    let image = |direct_io| Image::null(1 << 20, &ImageOptions { direct_io, ..Default::default() }).unwrap();
    for (strategy, persistent, cached, direct_io) in [
        (Strategy::Copy, false, Reach::Copy, Reach::Copy),
        (Strategy::Copy, true, Reach::Copy, Reach::Copy),
        (Strategy::Persistent, false, Reach::Copy, Reach::Copy),
        (Strategy::Persistent, true, Reach::DirectPersistent, Reach::Persistent),
        (Strategy::Direct, false, Reach::Direct, Reach::Direct),
        (Strategy::Direct, true, Reach::DirectPersistent, Reach::DirectPersistent),
    ] {
        assert_eq!(Reach::of(strategy, persistent, &image(false)), cached, "{strategy:?}, {persistent}");
        assert_eq!(Reach::of(strategy, persistent, &image(true)), direct_io, "{strategy:?}, {persistent}");
    }
}
