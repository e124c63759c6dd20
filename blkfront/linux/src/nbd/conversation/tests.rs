use super::{
    super::{
        testing::{export, option, request, wanted},
        wire::{command_flags, option},
    },
    *,
};

const SIZE: u64 = 64 << 20;

/// A conversation in its transmission phase.
fn begun() -> Conversation {
    let mut out = Vec::new();
    let mut talk = Conversation::start(&mut out);
    hear(&mut talk, &[&3u32.to_be_bytes()[..], &option(option::GO, &wanted("disk", &[]))].concat());
    assert_eq!(talk.next(&export(SIZE), &mut out), Ok(Said::Nothing));
    talk
}

/// Receives `bytes`, which must fit at once.
fn hear(talk: &mut Conversation, bytes: &[u8]) {
    talk.room()[..bytes.len()].copy_from_slice(bytes);
    talk.received(bytes.len());
}

fn next(talk: &mut Conversation) -> Result<Said, ProtocolError> {
    talk.next(&export(SIZE), &mut Vec::new())
}

#[test]
fn requests_that_arrive_together_are_told_one_by_one() {
    let mut talk = begun();
    let read = request(Command::READ, 0, 1, 0, 512);
    let flush = request(Command::FLUSH, 0, 2, 0, 0);
    hear(&mut talk, &[&read[..], &flush, &read[..5]].concat());
    assert_eq!(next(&mut talk), Ok(Said::Wants { cookie: 1, job: Job::Read { offset: 0, length: 512 } }));
    assert_eq!(next(&mut talk), Ok(Said::Wants { cookie: 2, job: Job::Flush }));
    assert_eq!(next(&mut talk), Ok(Said::Nothing));
    hear(&mut talk, &read[5..]);
    assert!(matches!(next(&mut talk), Ok(Said::Wants { cookie: 1, .. })));
}

#[test]
fn a_large_write_comes_in_pieces_whatever_the_socket_gives() {
    let mut talk = begun();
    let length = PIECE + 1536;
    let head = request(Command::WRITE, command_flags::FUA, 9, 0, u32::try_from(length).unwrap());
    let data: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let tail = request(Command::DISCONNECT, 0, 0, 0, 0);
    let mut taken = Vec::new();
    let mut ended = false;
    for part in [&head[..], &data, &tail].concat().chunks(4099) {
        hear(&mut talk, part);
        loop {
            if talk.payload().is_some() {
                taken.extend_from_slice(talk.take_payload());
                continue;
            }
            match next(&mut talk).unwrap() {
                Said::Nothing => break,
                Said::Goodbye => {
                    ended = true;
                    break;
                }
                Said::Wants { cookie, .. } => assert_eq!(cookie, 9),
                said => panic!("{said:?}"),
            }
        }
    }
    assert!(ended);
    assert_eq!(taken, data);
}

#[test]
fn the_data_of_a_refused_write_is_passed_over() {
    let mut talk = begun();
    let length = 3 * PIECE;
    hear(&mut talk, &request(Command::WRITE, 0, 5, 1, u32::try_from(length).unwrap()));
    assert_eq!(next(&mut talk), Ok(Said::Refused { cookie: 5, error: Errno::INVALID }));
    for _ in 0..3 {
        hear(&mut talk, &[0x25; PIECE]);
        assert_eq!(next(&mut talk), Ok(Said::Nothing));
        assert_eq!(talk.payload(), None);
    }
    hear(&mut talk, &request(Command::READ, 0, 6, 0, 512));
    assert!(matches!(next(&mut talk), Ok(Said::Wants { cookie: 6, .. })));
}

#[test]
fn an_unknown_command_is_refused_and_the_next_one_heard() {
    let mut talk = begun();
    hear(&mut talk, &[request(Command(77), 0, 3, 0, 512), request(Command::FLUSH, 0, 4, 0, 0)].concat());
    assert_eq!(next(&mut talk), Ok(Said::Refused { cookie: 3, error: Errno::INVALID }));
    assert_eq!(next(&mut talk), Ok(Said::Wants { cookie: 4, job: Job::Flush }));
}

#[test]
fn garbage_for_a_request_ends_the_conversation() {
    let mut talk = begun();
    hear(&mut talk, &[0xff; 28]);
    assert!(matches!(next(&mut talk), Err(ProtocolError::Request(_))));
}

#[test]
fn after_goodbye_nothing_is_heard() {
    let mut talk = begun();
    hear(
        &mut talk,
        &[request(Command::DISCONNECT, 0, 0, 0, 0), request(Command::FLUSH, 0, 4, 0, 0)].concat(),
    );
    assert_eq!(next(&mut talk), Ok(Said::Goodbye));
    assert_eq!(next(&mut talk), Ok(Said::Goodbye));
}

/// Whatever a client sends, in whatever portions: an answer or an end, never a panic, and room is always left.
#[test]
fn random_bytes_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..2000 {
        let mut talk = begun();
        for _ in 0..8 {
            let command = Command(u16::try_from(random() % 9).unwrap());
            let flags = u16::try_from(random() % 5).unwrap();
            let length = u32::try_from(random() >> (32 + random() % 24)).unwrap();
            let mut bytes = request(command, flags, random(), random() >> (random() % 64), length);
            if random() % 8 == 0 {
                let at = usize::try_from(random() % 28).unwrap();
                bytes[at] ^= u8::try_from(random() % 256).unwrap();
            }
            hear(&mut talk, &bytes);
            while talk.payload().is_some() {
                talk.take_payload();
            }
            if !matches!(next(&mut talk), Ok(Said::Wants { .. } | Said::Refused { .. } | Said::Nothing)) {
                break;
            }
            assert!(talk.room().len() >= PIECE);
        }
    }
}
