use super::*;

#[test]
fn a_request_is_read_big_endian() {
    let bytes =
        [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0];
    let request = Request::parse(&bytes).unwrap();
    assert_eq!(request.flags, command_flags::FUA);
    assert_eq!(request.command, Command::WRITE_ZEROES);
    assert_eq!(request.cookie, 0x0102_0304_0506_0708);
    assert_eq!(request.offset, 1 << 32);
    assert_eq!(request.length, 4096);
}

#[test]
fn a_stream_out_of_step_is_noticed() {
    assert_eq!(Request::parse(&[7; 28]), Err(BadMagic(0x0707_0707)));
}

#[test]
fn a_reply_echoes_the_cookie() {
    assert_eq!(
        reply(Errno::INVALID, 0x0102_0304_0506_0708),
        [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 22, 1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[test]
fn fields_run_out_without_panic() {
    let mut fields = Fields(&[0, 0, 0, 9, 1]);
    assert_eq!(fields.u32(), Some(9));
    assert_eq!(fields.u16(), None);
    assert_eq!(fields.bytes(u32::MAX), None);
    assert_eq!(fields.bytes(1), Some(&[1][..]));
    assert!(fields.is_empty());
}
