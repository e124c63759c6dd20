//! An NBD client's words, for tests.

use blkfront::{Capabilities, Discard};

use super::{
    export::Export,
    wire::{Command, OPTION_MAGIC},
};

/// A writable disk of `bytes` that can do everything.
pub(super) fn disk(bytes: u64) -> Capabilities {
    Capabilities {
        sectors: bytes / 512,
        sector_size: 512,
        physical_sector_size: 4096,
        read_only: false,
        removable: false,
        cdrom: false,
        largest_request: 45056,
        alignment: 512,
        flush: true,
        barrier: true,
        discard: Some(Discard { granularity: 4096, alignment: 0, secure: false }),
    }
}

pub(super) fn export(bytes: u64) -> Export {
    Export::new("disk", &disk(bytes))
}

pub(super) fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [&OPTION_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// The data of `INFO` and `GO`.
pub(super) fn wanted(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name.bytes());
    data.extend(u16::try_from(infos.len()).unwrap().to_be_bytes());
    infos.iter().for_each(|info| data.extend(info.to_be_bytes()));
    data
}

pub(super) fn request(command: Command, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    [
        &0x2560_9513u32.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &command.0.to_be_bytes(),
        &cookie.to_be_bytes(),
        &offset.to_be_bytes(),
        &length.to_be_bytes(),
    ]
    .concat()
}
