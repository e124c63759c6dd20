//! Headers, good ones and others.

use super::*;

const CLUSTER: usize = 64 << 10;
const FILE: u64 = 1 << 20;

/// A header of version 3 of a disk of 1 GiB, with what `change` does to it.
fn parsed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Header, String> {
    let mut bytes = vec![0; CLUSTER];
    let fields: [(usize, u32); 12] = [
        (0, MAGIC),
        (4, 3),
        (20, 16),
        (24, 0),
        (28, 1 << 30),
        (36, 2),
        (44, 0x3_0000),
        (52, 0x1_0000),
        (56, 1),
        (96, 4),
        (100, 104),
        (32, 0),
    ];
    for (at, value) in fields {
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    change(&mut bytes);
    Header::parse(&bytes, 16, FILE).map_err(|why| why.to_string())
}

fn with(at: usize, value: u32) -> Result<Header, String> {
    parsed(|bytes| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes()))
}

#[test]
fn what_it_is_made_of() {
    let header = parsed(|_| {}).unwrap();
    assert_eq!((header.version, header.cluster(), header.size), (3, 65536, 1 << 30));
    assert_eq!((header.l1, header.reftable), (0x3_0000..0x3_0010, 0x1_0000..0x2_0000));
    assert_eq!(header.backing, None);
}

#[test]
fn what_is_not_served_is_named() {
    for (at, value, why) in [
        (4, 4, "version 4"),
        (32, 2, "encrypted"),
        (76, 1, "dirty"),
        (76, 2, "corrupt"),
        (76, 4, "a file of its own"),
        (76, 8, "compressed in another way"),
        (76, 16, "extended"),
        (72, 1, "not known (0x100000000)"),
        (96, 7, "2^7 bits"),
        (100, 8, "header of 8 bytes"),
        (100, 1 << 20, "header of 1048576 bytes"),
        (24, 0x8000_0000, "entries"),
        (24, 1 << 8, "entries"),
        (36, 1, "table of level 1 of 1 entries"),
        (36, u32::MAX, "has 34359738360 bytes"),
        (44, 0x3_0001, "table of level 1 is at byte 196609"),
        (44, 0x10_0000, "beyond the end of the file"),
        (40, u32::MAX, "beyond the end of the file"),
        (52, 0, "table of reference counts is at byte 0"),
        (56, u32::MAX, "table of reference counts has"),
        (56, 100, "beyond the end of the file"),
    ] {
        let said = with(at, value).unwrap_err();
        assert!(said.contains(why), "{value:#x} at {at}: {said}");
    }
}

fn based(format: Option<&[u8]>, name: &[u8]) -> Result<Header, String> {
    parsed(|bytes| {
        let mut at = 104;
        if let Some(format) = format {
            bytes[at..at + 4].copy_from_slice(&BACKING_FORMAT.to_be_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&u32::try_from(format.len()).unwrap().to_be_bytes());
            bytes[at + 8..at + 8 + format.len()].copy_from_slice(format);
            at += 8 + format.len().next_multiple_of(8) + 8;
        }
        bytes[at..at + name.len()].copy_from_slice(name);
        bytes[8..16].copy_from_slice(&(at as u64).to_be_bytes());
        bytes[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
    })
}

#[test]
fn what_it_is_based_on() {
    let found = |format, name| based(format, name).map(|header| header.backing.unwrap());
    assert_eq!(found(Some(b"raw"), b"/a").unwrap(), ("/a".into(), Some("raw".into())));
    assert_eq!(found(None, b"a.img").unwrap(), ("a.img".into(), None));
    assert!(found(Some(b"raw"), b"").unwrap_err().contains("0 bytes"));
    assert!(found(Some(b"raw"), &[0xFF; 8]).unwrap_err().contains("no text"));
    assert!(found(Some(b"raw"), &[b'a'; 1024]).unwrap_err().contains("1024 bytes"));
    assert!(parsed(|bytes| bytes[8] = 1).unwrap_err().contains("backing file's name"));
}

#[test]
fn noise_is_refused_or_harmless() {
    let mut state = 1u64;
    for _ in 0..20_000 {
        _ = parsed(|bytes| {
            for _ in 0..3 {
                state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                let at = usize::try_from(state >> 40).unwrap() % 120;
                bytes[at] = state.to_be_bytes()[2];
            }
        });
    }
}
