use super::{
    super::testing::{export, option, wanted},
    *,
};

const SIZE: u64 = 1 << 20;

/// A handshake whose client has sent its flags.
fn ready(flags: u32) -> Handshake {
    let mut handshake = Handshake::greet(&mut Vec::new());
    let taken = handshake.advance(&flags.to_be_bytes(), &export(SIZE), &mut Vec::new());
    assert_eq!(taken, Ok((4, Step::Continue)));
    handshake
}

/// What follows one option, and the replies to it as (reply type, data).
fn ask(handshake: &mut Handshake, number: u32, data: &[u8]) -> (Step, Vec<(u32, Vec<u8>)>) {
    let (mut out, message) = (Vec::new(), option(number, data));
    let (taken, step) = handshake.advance(&message, &export(SIZE), &mut out).unwrap();
    assert_eq!(taken, message.len());
    let (mut fields, mut replies) = (Fields(&out), Vec::new());
    while !fields.is_empty() {
        assert_eq!(fields.u64(), Some(OPTION_REPLY_MAGIC));
        assert_eq!(fields.u32(), Some(number));
        let (reply, length) = (fields.u32().unwrap(), fields.u32().unwrap());
        replies.push((reply, fields.bytes(length).unwrap().to_vec()));
    }
    (step, replies)
}

#[test]
fn the_greeting_is_fixed_newstyle() {
    let mut out = Vec::new();
    Handshake::greet(&mut out);
    assert_eq!(out, b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn go_tells_size_flags_and_block_sizes() {
    let (step, replies) = ask(&mut ready(3), option::GO, &wanted("disk", &[]));
    assert_eq!(step, Step::Transmission);
    let [(info1, size), (info2, blocks), (ack, empty)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((*info1, *info2, *ack), (option_reply::INFO, option_reply::INFO, option_reply::ACK));
    assert!(empty.is_empty());
    assert_eq!(size[..10], [0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!(size.len(), 12);
    assert_eq!(blocks[..], [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0]);
}

#[test]
fn info_answers_alike_and_stays_in_the_handshake() {
    let mut handshake = ready(3);
    let (step, replies) = ask(&mut handshake, option::INFO, &wanted("", &[info::NAME, info::BLOCK_SIZE]));
    assert_eq!(step, Step::Continue);
    assert!(replies.contains(&(option_reply::INFO, b"\0\x01disk".to_vec())));
    assert_eq!(ask(&mut handshake, option::GO, &wanted("", &[])).0, Step::Transmission);
}

#[test]
fn list_names_the_export_and_abort_ends() {
    let mut handshake = ready(3);
    let (step, replies) = ask(&mut handshake, option::LIST, &[]);
    assert_eq!(step, Step::Continue);
    assert_eq!(replies, [(option_reply::SERVER, b"\0\0\0\x04disk".to_vec()), (option_reply::ACK, vec![])]);
    let (step, replies) = ask(&mut handshake, option::ABORT, &[]);
    assert_eq!((step, replies.len()), (Step::Goodbye, 1));
}

#[test]
fn export_name_pads_for_old_clients_only() {
    for (flags, length) in [(1, 8 + 2 + 124), (3, 8 + 2)] {
        let mut out = Vec::new();
        let message = option(option::EXPORT_NAME, b"disk");
        let step = ready(flags).advance(&message, &export(SIZE), &mut out);
        assert_eq!(step, Ok((message.len(), Step::Transmission)));
        assert_eq!(out.len(), length);
    }
}

#[test]
fn foreign_exports_are_unknown() {
    let (step, replies) = ask(&mut ready(3), option::GO, &wanted("other", &[]));
    assert_eq!((step, replies[0].0), (Step::Continue, option_reply::UNKNOWN_EXPORT));
    let message = option(option::EXPORT_NAME, b"other");
    let refused = ready(3).advance(&message, &export(SIZE), &mut Vec::new());
    assert_eq!(refused, Err(HandshakeError::UnknownExport));
}

#[test]
fn unspoken_options_are_unsupported_and_the_handshake_goes_on() {
    let mut handshake = ready(3);
    for number in [4, 5, 8, 9, 10, 11, 0, u32::MAX] {
        let (step, replies) = ask(&mut handshake, number, b"whatever");
        assert_eq!((step, replies[0].0), (Step::Continue, option_reply::UNSUPPORTED), "{number}");
    }
    assert_eq!(ask(&mut handshake, option::GO, &wanted("disk", &[])).0, Step::Transmission);
}

#[test]
fn malformed_options_are_invalid_and_the_handshake_goes_on() {
    let mut handshake = ready(3);
    let good = wanted("disk", &[info::EXPORT]);
    let trailing = [&good[..], &[0]].concat();
    let lying_name = [&u32::MAX.to_be_bytes()[..], &good[4..]].concat();
    let lying_count = [&wanted("disk", &[])[..8], &[0xff, 0xff], &[0; 6]].concat();
    for data in [&[][..], &good[..3], &good[..good.len() - 1], &trailing, &lying_name, &lying_count] {
        let (step, replies) = ask(&mut handshake, option::GO, data);
        assert_eq!((step, replies[0].0), (Step::Continue, option_reply::INVALID), "{data:?}");
    }
    let (_, replies) = ask(&mut handshake, option::LIST, b"x");
    assert_eq!(replies[0].0, option_reply::INVALID);
}

#[test]
fn what_cannot_be_the_protocol_ends_the_connection() {
    let mut fresh = Handshake::greet(&mut Vec::new());
    let flags = fresh.advance(&[0xff; 4], &export(SIZE), &mut Vec::new());
    assert_eq!(flags, Err(HandshakeError::Flags(u32::MAX)));
    let magic = ready(3).advance(&[b'x'; 16], &export(SIZE), &mut Vec::new());
    assert_eq!(magic, Err(HandshakeError::Magic(0x7878_7878_7878_7878)));
    let mut long = option(option::GO, &[]);
    long[12..].copy_from_slice(&u32::MAX.to_be_bytes());
    let long = ready(3).advance(&long, &export(SIZE), &mut Vec::new());
    assert_eq!(long, Err(HandshakeError::TooLong { option: option::GO, length: u32::MAX }));
}

#[test]
fn half_a_message_is_waited_for() {
    let message = option(option::GO, &wanted("disk", &[]));
    for cut in 0..message.len() {
        let mut out = Vec::new();
        assert_eq!(ready(3).advance(&message[..cut], &export(SIZE), &mut out), Ok((0, Step::Continue)));
        assert!(out.is_empty());
    }
}
