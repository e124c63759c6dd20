use super::*;

fn op(offset: u32, local: CopyEnd<'_>) -> CopyOp<'_> {
    CopyOp { from: DomId(7), gref: GrantRef(0x1234), offset, local, status: Ok(()) }
}

#[test]
fn the_granted_end_is_told_from_the_private_one() {
    let mut bytes = [0; 512];
    let address = bytes.as_ptr() as u64;
    let there = 0x0007_0200_0000_1234;
    let into = segment(&mut op(0x200, CopyEnd::Into(&mut bytes)));
    assert_eq!((into.source, into.dest, into.len, into.flags), (there, address, 512, SOURCE_GREF));
    let from = segment(&mut op(0x200, CopyEnd::From(&bytes)));
    assert_eq!((from.source, from.dest, from.len, from.flags), (address, there, 512, DEST_GREF));
}

#[test]
fn what_leaves_the_page_is_not_shown_to_the_kernel() {
    let bytes = [0; 4096];
    assert_eq!(segment(&mut op(0, CopyEnd::From(&bytes))).len, 4096);
    for (offset, len) in [(1, 4096), (4096, 1), (u32::MAX, 1)] {
        let mut op = op(offset, CopyEnd::From(&bytes[..len]));
        assert_eq!(segment(&mut op).len, 0);
        let gref = GrantRef(0x1234);
        assert_eq!(
            in_page(&op),
            Err(GrantError::BadRange { gref, offset, len: u32::try_from(len).unwrap() })
        );
    }
}

#[test]
fn each_status_has_its_meaning() {
    let op = op(0, CopyEnd::From(&[]));
    assert_eq!(outcome(0, &op), Ok(()));
    assert_eq!(outcome(-2, &op), Err(GrantError::NoDomain(DomId(7))));
    assert_eq!(outcome(-8, &op), Err(GrantError::ReadOnly(GrantRef(0x1234))));
    assert_eq!(outcome(-13, &op), Err(GrantError::Exhausted));
    for status in [-1, -3, -9, -10, GNTST_EAGAIN, 1] {
        assert_eq!(outcome(status, &op), Err(GrantError::BadRef(GrantRef(0x1234))));
    }
}
