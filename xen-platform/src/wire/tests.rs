use proptest::prelude::*;

use super::*;

fn message() -> impl Strategy<Value = Message> {
    (any::<u32>(), any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..=PAYLOAD_MAX)).prop_map(
        |(kind, request, transaction, payload)| Message { kind: Kind(kind), request, transaction, payload },
    )
}

proptest! {
    #[test]
    fn any_cut_of_the_stream_gives_the_same_messages(
        messages in prop::collection::vec(message(), 0..6),
        cuts in prop::collection::vec(1usize..3000, 1..20),
    ) {
        let mut stream = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut stream));
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            decoder.push(now);
            rest = later;
            while let Some(message) = decoder.next_message()? { got.push(message) }
        }
        prop_assert_eq!(got, messages);
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some(message)) = decoder.next_message() {
            let _ = message.as_event();
            split(&message.payload).for_each(|part| { let _ = part.and_then(Permission::parse); });
        }
    }
}

#[test]
fn header_is_four_little_endian_words() {
    let mut out = Vec::new();
    Message { kind: Kind::READ, request: 0x0102, transaction: 7, payload: b"a\0".to_vec() }.encode(&mut out);
    assert_eq!(out, [2, 0, 0, 0, 2, 1, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, b'a', 0]);
}

#[test]
fn an_oversized_message_is_refused_before_its_payload_arrives() {
    let mut decoder = Decoder::default();
    decoder.push(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0]);
    assert_eq!(decoder.next_message(), Err(Oversized(4097)));
    assert_eq!(decoder.next_message(), Err(Oversized(4097)), "the stream stays unusable");
}

#[test]
fn errno_words_come_back() {
    for (errno, word) in Errno::WORDS {
        assert_eq!(Errno::parse(word), Some(errno));
        assert_eq!(errno.word(), word);
    }
    assert_eq!(Errno::parse("EWHAT"), None);
}

#[test]
fn permissions_as_text() {
    for text in ["n0", "r5", "w32751", "b1"] {
        assert_eq!(Permission::parse(text).map(Permission::emit).as_deref(), Some(text));
    }
    for text in ["", "r", "x1", "r-1", "r 1", "r65536", "r+1", "é1"] {
        assert_eq!(Permission::parse(text), None, "{text}");
    }
}

#[test]
fn events_need_two_whole_strings() {
    let event = WatchEvent { path: "/a".into(), token: "t".into() };
    let message = Message::event(&event).unwrap();
    assert_eq!(message.as_event(), Some(event));
    for payload in [&b""[..], b"/a\0", b"/a\0t", b"/a\0t\0x\0", b"\xff\0t\0"] {
        assert_eq!(Message { payload: payload.to_vec(), ..message.clone() }.as_event(), None, "{payload:?}");
    }
    let long = WatchEvent { path: "p".repeat(PAYLOAD_MAX - 2), token: "t".into() };
    assert_eq!(Message::event(&long), None);
}
