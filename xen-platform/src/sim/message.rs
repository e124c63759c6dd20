//! What a process and the broker say to each other.
//!
//! One message is one packet of little-endian 32-bit words, the first of which says what it is. A process asks, the broker
//! answers, in turn; descriptors travel beside an answer.

use nix::errno::Errno;

use crate::{
    DomId, EventError, GrantError, Port,
    fake::{GuestInfo, Run},
};

/// The version of this protocol; both ends come from one source, so equality is enough.
pub(crate) const VERSION: u32 = 1;

/// What a process asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Always first: the version, and the domain the process is in.
    Hello { version: u32, dom: DomId },
    /// A new guest of this many pages.
    CreateDomain { pages: u32 },
    /// The end of a guest.
    DestroyDomain { dom: DomId },
    /// The domains above `after`, or from domain 0 on: as many as fit.
    ListDomains { after: Option<DomId> },
    /// Memory and table of a domain, and the process's slot if it is going to map.
    Guest { dom: DomId, map: bool },
    /// Pages of the process's own domain.
    Reserve { pages: u32 },
    /// Gives reserved pages back.
    Unreserve { pages: Run },
    /// A port for `remote` to bind.
    AllocUnbound { remote: DomId },
    /// A port bound to `remote`'s `port`.
    Bind { remote: DomId, port: Port },
    /// The end of one of the process's ports.
    Close { port: Port },
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is so.
    Done,
    /// The new domain.
    Domain(DomId),
    /// Some domains, and whether these are the last.
    Domains(Vec<DomId>, bool),
    /// A domain; beside it the files of its table and of its memory.
    Guest { info: GuestInfo, slot: u32 },
    /// Pages.
    Pages(Run),
    /// A port; beside it the eventfd that wakes its owner and the one that wakes the other end.
    Port(Port),
    /// No.
    Refused(Refusal),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Garbled,
    Version(u32),
    NoDomain(DomId),
    NotUnbound,
    NotBound(Port),
    Exhausted,
    System(i32),
}

/// Domains in one answer.
pub(crate) const LIST_MAX: usize = 500;

impl Ask {
    pub(crate) fn words(self) -> Vec<u32> {
        match self {
            Ask::Hello { version, dom } => vec![1, version, dom.0.into()],
            Ask::CreateDomain { pages } => vec![2, pages],
            Ask::DestroyDomain { dom } => vec![3, dom.0.into()],
            Ask::ListDomains { after: None } => vec![4],
            Ask::ListDomains { after: Some(dom) } => vec![4, dom.0.into()],
            Ask::Guest { dom, map } => vec![5, dom.0.into(), map.into()],
            Ask::Reserve { pages } => vec![6, pages],
            Ask::Unreserve { pages } => vec![7, pages.first, pages.count],
            Ask::AllocUnbound { remote } => vec![8, remote.0.into()],
            Ask::Bind { remote, port } => vec![9, remote.0.into(), port.0],
            Ask::Close { port } => vec![10, port.0],
        }
    }

    pub(crate) fn parse(words: &[u32]) -> Option<Self> {
        Some(match *words {
            [1, version, dom] => Ask::Hello { version, dom: domain(dom)? },
            [2, pages] => Ask::CreateDomain { pages },
            [3, dom] => Ask::DestroyDomain { dom: domain(dom)? },
            [4] => Ask::ListDomains { after: None },
            [4, dom] => Ask::ListDomains { after: Some(domain(dom)?) },
            [5, dom, map] => Ask::Guest { dom: domain(dom)?, map: map != 0 },
            [6, pages] => Ask::Reserve { pages },
            [7, first, count] => Ask::Unreserve { pages: Run { first, count } },
            [8, dom] => Ask::AllocUnbound { remote: domain(dom)? },
            [9, dom, port] => Ask::Bind { remote: domain(dom)?, port: Port(port) },
            [10, port] => Ask::Close { port: Port(port) },
            _ => return None,
        })
    }
}

impl Answer {
    pub(crate) fn words(&self) -> Vec<u32> {
        match self {
            Answer::Done => vec![1],
            Answer::Domain(dom) => vec![2, dom.0.into()],
            Answer::Domains(doms, last) => {
                [3, u32::from(*last)].into_iter().chain(doms.iter().map(|dom| dom.0.into())).collect()
            }
            Answer::Guest { info, slot } => vec![4, info.dom.0.into(), info.pages, info.salt, *slot],
            Answer::Pages(run) => vec![5, run.first, run.count],
            Answer::Port(port) => vec![6, port.0],
            Answer::Refused(refusal) => refusal.words(),
        }
    }

    pub(crate) fn parse(words: &[u32]) -> Option<Self> {
        Some(match *words {
            [1] => Answer::Done,
            [2, dom] => Answer::Domain(domain(dom)?),
            [3, last, ref doms @ ..] => {
                Answer::Domains(doms.iter().map(|dom| domain(*dom)).collect::<Option<_>>()?, last != 0)
            }
            [4, dom, pages, salt, slot] => {
                Answer::Guest { info: GuestInfo { dom: domain(dom)?, pages, salt }, slot }
            }
            [5, first, count] => Answer::Pages(Run { first, count }),
            [6, port] => Answer::Port(Port(port)),
            [7, ref refusal @ ..] => Answer::Refused(Refusal::parse(refusal)?),
            _ => return None,
        })
    }
}

impl Refusal {
    fn words(self) -> Vec<u32> {
        match self {
            Refusal::Garbled => vec![7, 1],
            Refusal::Version(version) => vec![7, 2, version],
            Refusal::NoDomain(dom) => vec![7, 3, dom.0.into()],
            Refusal::NotUnbound => vec![7, 4],
            Refusal::NotBound(port) => vec![7, 5, port.0],
            Refusal::Exhausted => vec![7, 6],
            Refusal::System(errno) => vec![7, 7, errno.cast_unsigned()],
        }
    }

    fn parse(words: &[u32]) -> Option<Self> {
        Some(match *words {
            [1] => Refusal::Garbled,
            [2, version] => Refusal::Version(version),
            [3, dom] => Refusal::NoDomain(domain(dom)?),
            [4] => Refusal::NotUnbound,
            [5, port] => Refusal::NotBound(Port(port)),
            [6] => Refusal::Exhausted,
            [7, errno] => Refusal::System(errno.cast_signed()),
            _ => return None,
        })
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::NoDomain(dom) => Refusal::NoDomain(dom),
            GrantError::System(errno) => Refusal::System(errno),
            _ => Refusal::Exhausted,
        }
    }
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Self {
        match error {
            EventError::NotUnbound => Refusal::NotUnbound,
            EventError::NotBound(port) => Refusal::NotBound(port),
            EventError::NoDomain(dom) => Refusal::NoDomain(dom),
            EventError::Exhausted => Refusal::Exhausted,
            EventError::System(errno) => Refusal::System(errno),
        }
    }
}

impl From<Refusal> for GrantError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoDomain(dom) => GrantError::NoDomain(dom),
            Refusal::Exhausted => GrantError::Exhausted,
            Refusal::System(errno) => GrantError::System(errno),
            _ => GrantError::System(Errno::EPROTO as i32),
        }
    }
}

impl From<Refusal> for EventError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoDomain(dom) => EventError::NoDomain(dom),
            Refusal::NotUnbound => EventError::NotUnbound,
            Refusal::NotBound(port) => EventError::NotBound(port),
            Refusal::Exhausted => EventError::Exhausted,
            Refusal::System(errno) => EventError::System(errno),
            _ => EventError::System(Errno::EPROTO as i32),
        }
    }
}

fn domain(word: u32) -> Option<DomId> {
    u16::try_from(word).ok().map(DomId)
}

#[cfg(test)]
mod tests;
