//! The word that both the wire and the platform speak.

use core::fmt;

/// A grant reference: the number by which a guest's page is lent (Xen public header `grant_table.h`, `grant_ref_t`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantRef(pub u32);

impl fmt::Display for GrantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
