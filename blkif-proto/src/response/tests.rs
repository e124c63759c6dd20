use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn responses_round_trip(id: u64, op: u8, status: i16) {
        let response = Response { id, op: Opcode(op), status: Status(status) };
        prop_assert_eq!(Response::parse(&response.emit()), response);
    }

    #[test]
    fn any_bytes_are_a_response(bytes: [u8; 32], fill: u8) {
        let mut entry = [fill; 112];
        entry[..32].copy_from_slice(&bytes);
        let response = Response::parse(&entry);
        prop_assert_eq!(&response.emit()[..9], &entry[..9]);
        prop_assert_eq!(&response.emit()[10..12], &entry[10..12]);
    }
}

#[test]
fn unused_bytes_are_zero() {
    let entry = Response { id: u64::MAX, op: Opcode(0xFF), status: Status(-1) }.emit();
    assert_eq!(entry[9], 0);
    assert!(entry[12..].iter().all(|byte| *byte == 0));
}
