//! The handshake of one client, as a pure state machine: the client's bytes in, the server's bytes out.
//!
//! Fixed newstyle only, with simple replies. Options that are not spoken here (TLS, structured replies, metadata contexts,
//! extended headers) get the answer "unsupported", upon which every client falls back.

use super::{
    export::Export,
    wire::{Fields, GREETING, OPTION_MAGIC, OPTION_REPLY_MAGIC, handshake_flags, info, option, option_reply},
};

/// Longest option taken: a name of 4096 bytes, the protocol's limit, and its list of wanted information.
pub(super) const LONGEST_OPTION: u32 = 8192;

/// Where the handshake of one client stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    flags_seen: bool,
    no_zeroes: bool,
}

/// What follows after the bytes that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed, or more options may follow.
    Continue,
    /// The handshake is over; requests follow.
    Transmission,
    /// The client wants no more.
    Goodbye,
}

/// The client broke the handshake beyond repair: its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("unknown client flags {0:#x}")]
    Flags(u32),
    #[error("an option starts with {0:#x}, which is not IHAVEOPT")]
    Magic(u64),
    #[error("option {option} is {length} bytes long")]
    TooLong { option: u32, length: u32 },
    #[error("the client wants an export that is not here")]
    UnknownExport,
}

impl Handshake {
    /// Greets a new client.
    pub(super) fn greet(out: &mut Vec<u8>) -> Self {
        out.extend(GREETING.to_be_bytes());
        out.extend(OPTION_MAGIC.to_be_bytes());
        out.extend((handshake_flags::FIXED_NEWSTYLE | handshake_flags::NO_ZEROES).to_be_bytes());
        Self { flags_seen: false, no_zeroes: false }
    }

    /// Takes one message off the front of `input` if it is there whole. Answers how many bytes it was (0: more are needed).
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        export: &Export,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Step), HandshakeError> {
        let mut fields = Fields(input);
        if !self.flags_seen {
            let Some(flags) = fields.u32() else { return Ok((0, Step::Continue)) };
            self.client_flags(flags)?;
            return Ok((4, Step::Continue));
        }
        let (Some(magic), Some(option), Some(length)) = (fields.u64(), fields.u32(), fields.u32()) else {
            return Ok((0, Step::Continue));
        };
        if magic != OPTION_MAGIC {
            return Err(HandshakeError::Magic(magic));
        }
        if length > LONGEST_OPTION {
            return Err(HandshakeError::TooLong { option, length });
        }
        let Some(data) = fields.bytes(length) else { return Ok((0, Step::Continue)) };
        let step = self.option(option, data, export, out)?;
        Ok((input.len() - fields.0.len(), step))
    }

    fn client_flags(&mut self, flags: u32) -> Result<(), HandshakeError> {
        let fixed = u32::from(handshake_flags::FIXED_NEWSTYLE);
        let no_zeroes = u32::from(handshake_flags::NO_ZEROES);
        if flags & !(fixed | no_zeroes) != 0 {
            return Err(HandshakeError::Flags(flags));
        }
        self.flags_seen = true;
        self.no_zeroes = flags & no_zeroes != 0;
        Ok(())
    }

    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        export: &Export,
        out: &mut Vec<u8>,
    ) -> Result<Step, HandshakeError> {
        match option {
            // This option has no error reply: a server that lacks the export can only hang up.
            option::EXPORT_NAME if !export.is_called(data) => return Err(HandshakeError::UnknownExport),
            option::EXPORT_NAME => {
                out.extend(export.bytes().to_be_bytes());
                out.extend(export.flags().to_be_bytes());
                if !self.no_zeroes {
                    out.extend([0; 124]);
                }
                return Ok(Step::Transmission);
            }
            option::ABORT => {
                answer(out, option, option_reply::ACK, &[]);
                return Ok(Step::Goodbye);
            }
            option::LIST if data.is_empty() => {
                let name = export.name().as_bytes();
                let length = u32::try_from(name.len()).unwrap_or_default();
                answer(out, option, option_reply::SERVER, &[&length.to_be_bytes(), name]);
                answer(out, option, option_reply::ACK, &[]);
            }
            option::INFO | option::GO => match Wanted::parse(data) {
                None => answer(out, option, option_reply::INVALID, &[b"malformed option"]),
                Some(wanted) if !export.is_called(wanted.name) => {
                    answer(out, option, option_reply::UNKNOWN_EXPORT, &[b"no such export"]);
                }
                Some(wanted) => {
                    wanted.answer(option, export, out);
                    if option == option::GO {
                        return Ok(Step::Transmission);
                    }
                }
            },
            option::LIST => answer(out, option, option_reply::INVALID, &[b"LIST takes no data"]),
            _ => answer(out, option, option_reply::UNSUPPORTED, &[b"not spoken here"]),
        }
        Ok(Step::Continue)
    }
}

/// The data of `INFO` and `GO`.
struct Wanted<'a> {
    name: &'a [u8],
    name_too: bool,
}

impl<'a> Wanted<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let length = fields.u32()?;
        let name = fields.bytes(length)?;
        let mut name_too = false;
        for _ in 0..fields.u16()? {
            name_too |= fields.u16()? == info::NAME;
        }
        fields.is_empty().then_some(Self { name, name_too })
    }

    /// Size and flags must always be told; block sizes are told unasked, since a disk's sectors bind every client.
    fn answer(&self, option: u32, export: &Export, out: &mut Vec<u8>) {
        let kind = info::EXPORT.to_be_bytes();
        let (size, flags) = (export.bytes().to_be_bytes(), export.flags().to_be_bytes());
        answer(out, option, option_reply::INFO, &[&kind, &size, &flags]);
        let [least, preferred, largest] = export.blocks().map(u32::to_be_bytes);
        let kind = info::BLOCK_SIZE.to_be_bytes();
        answer(out, option, option_reply::INFO, &[&kind, &least, &preferred, &largest]);
        if self.name_too {
            answer(out, option, option_reply::INFO, &[&info::NAME.to_be_bytes(), export.name().as_bytes()]);
        }
        answer(out, option, option_reply::ACK, &[]);
    }
}

fn answer(out: &mut Vec<u8>, option: u32, reply: u32, data: &[&[u8]]) {
    let length: usize = data.iter().map(|part| part.len()).sum();
    out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(reply.to_be_bytes());
    out.extend(u32::try_from(length).unwrap_or_default().to_be_bytes());
    data.iter().for_each(|part| out.extend(*part));
}

#[cfg(test)]
mod tests;
