//! Work on a command line.

use super::*;

#[test]
fn words_come_back() {
    let range = Range { sector: 8, bytes: 4096, offset: 512 };
    let all = [
        Work::Read(range),
        Work::Write(range),
        Work::Barrier(Some(range)),
        Work::Barrier(None),
        Work::Flush,
        Work::Discard(u64::MAX, 1, false),
        Work::Discard(3, 4, true),
    ];
    for work in all {
        assert_eq!(work.to_string().parse::<Work>().unwrap(), work);
    }
}

#[test]
fn other_words_are_refused() {
    for word in [
        "",
        "read",
        "read:8:4096",
        "read:8:4096:0:0",
        "write:8:4294967296:0",
        "flush:1",
        "discard:-1:2",
        "trim",
    ] {
        assert!(word.parse::<Work>().is_err(), "{word:?}");
    }
}
