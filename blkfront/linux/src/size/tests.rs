use super::*;

#[test]
fn suffixes_are_powers_of_1024() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("8s", 4096),
        ("4k", 4096),
        ("4K", 4096),
        ("4KiB", 4096),
        ("4kb", 4096),
        ("1M", 1 << 20),
        ("3g", 3 << 30),
        ("2TiB", 2 << 40),
    ] {
        assert_eq!(parse(text), Ok(bytes), "{text}");
    }
}

#[test]
fn what_is_not_a_size_is_refused() {
    for text in ["", "k", "-1", "4x", "4.5k", "18446744073709551616", "99999999T", "4 k"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn block_sizes_fit_32_bits_and_are_not_zero() {
    assert_eq!(parse_u32("1M"), Ok(1 << 20));
    assert!(parse_u32("0").is_err());
    assert!(parse_u32("4G").is_err());
}
