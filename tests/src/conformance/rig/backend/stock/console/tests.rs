//! What goes over a console.

use super::*;

#[test]
fn base64_is_the_one_of_rfc_4648() {
    for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(base64(plain.as_bytes()), text);
    }
    assert_eq!(base64(&[0xFB, 0xFF]), "+/8=");
}

#[test]
fn lines_are_told_apart() {
    assert_eq!(Line::parse("%12 done 3"), Line::Answer(12, "done 3".into()));
    for other in ["% done", "%x y", "12 done", "@@ 4 0"] {
        assert_eq!(Line::parse(other), Line::Other(other.into()));
    }
    assert_eq!(Line::parse("[   12.5] blkfront: xvda: x").of_the_kernel(), Some("blkfront: xvda: x"));
    assert_eq!(Line::parse("%1 [2] x").of_the_kernel(), None);
}
