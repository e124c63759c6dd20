//! Paths of nodes: parsed once, absolute ever after.

use core::{borrow::Borrow, fmt};

use crate::{
    DomId,
    wire::{ABS_PATH_MAX, Errno, REL_PATH_MAX},
};

/// An absolute, canonical node path such as `/local/domain/1`, or one of the special names that begin with `@`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodePath(String);

impl NodePath {
    pub(super) const INTRODUCE_DOMAIN: &'static str = "@introduceDomain";
    pub(super) const RELEASE_DOMAIN: &'static str = "@releaseDomain";

    pub(super) fn root() -> Self {
        Self("/".into())
    }

    /// A domain's own directory, which relative paths start from.
    pub(super) fn of_domain(domain: DomId) -> Self {
        Self(format!("/local/domain/{domain}"))
    }

    /// A path as a client wrote it; relative ones start at `base`. Errors: `EINVAL` for a bad character, an empty, double or
    /// trailing slash, or too many bytes.
    pub(super) fn parse(text: &str, base: &NodePath) -> Result<Self, Errno> {
        let relative = !text.starts_with(['/', '@']);
        let legal = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte));
        let slashes = text == "/" || !(text.is_empty() || text.ends_with('/') || text.contains("//"));
        let limit = if relative { REL_PATH_MAX } else { ABS_PATH_MAX };
        let special = text.starts_with('@') && text.contains('/');
        if !legal || !slashes || special || text.len() > limit {
            return Err(Errno::Inval);
        }
        Ok(Self(if relative { format!("{base}/{text}") } else { text.into() }))
    }

    pub(super) fn special(name: &str) -> Self {
        Self(name.into())
    }

    pub(super) fn child(&self, name: &str) -> Self {
        Self(if self.0 == "/" { format!("/{name}") } else { format!("{}/{name}", self.0) })
    }

    /// The path above; `None` for the root and for special names.
    pub(super) fn parent(&self) -> Option<NodePath> {
        let (above, name) = self.0.rsplit_once('/')?;
        match (above, name) {
            ("", "") => None,
            ("", _) => Some(Self::root()),
            _ => Some(Self(above.into())),
        }
    }

    /// The last part; empty for the root.
    pub(super) fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    pub(super) fn is_special(&self) -> bool {
        self.0.starts_with('@')
    }

    /// True when `other` is this node or lies below it.
    pub(super) fn covers(&self, other: &NodePath) -> bool {
        match other.0.strip_prefix(&self.0) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || (self.0 == "/" && !other.is_special()),
            None => false,
        }
    }

    /// The path as a client below `base` would write it relatively; `None` when it lies elsewhere.
    pub(super) fn relative_to(&self, base: &NodePath) -> Option<&str> {
        self.0.strip_prefix(&base.0)?.strip_prefix('/')
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NodePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
