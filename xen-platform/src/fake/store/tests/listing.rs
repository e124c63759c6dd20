use super::*;

/// A directory whose list is far over one message.
fn crowded() -> (Bench, ConnId, Vec<String>) {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    let names: Vec<_> = (0..700).map(|node| format!("child-number-{node:04}")).collect();
    for name in &names {
        bench.write(dom0, &format!("/big/{name}"), "").unwrap();
    }
    (bench, dom0, names)
}

/// One part: its generation, its bytes without the end mark, and whether that was there.
fn part(bench: &mut Bench, id: ConnId, tx: u32, path: &str, offset: usize) -> (String, Vec<u8>, bool) {
    let payload = wire::strings(&[path, &offset.to_string()]);
    let reply = bench.ask(id, tx, Kind::DIRECTORY_PART, &payload).unwrap();
    let end = reply.iter().position(|byte| *byte == 0).unwrap();
    let generation = String::from_utf8(reply[..end].to_vec()).unwrap();
    let rest = &reply[end + 1..];
    let last = rest == [0] || rest.ends_with(&[0, 0]);
    (generation, rest[..rest.len() - usize::from(last)].to_vec(), last)
}

#[test]
fn a_list_over_one_message_comes_in_parts() {
    let (mut bench, dom0, names) = crowded();
    assert_eq!(bench.list(dom0, "/big"), Err(Errno::TooBig));
    let mut all = Vec::new();
    loop {
        let (_, bytes, last) = part(&mut bench, dom0, 0, "/big", all.len());
        all.extend(bytes);
        if last {
            break;
        }
    }
    assert_eq!(all, wire::strings(&names));
    let (_, beyond, last) = part(&mut bench, dom0, 0, "/big", 1_000_000);
    assert!(beyond.is_empty() && last);
}

#[test]
fn the_generation_changes_with_the_list_inside_transactions_too() {
    let (mut bench, dom0, _) = crowded();
    let generation = |bench: &mut Bench, tx| part(bench, dom0, tx, "/big", 0).0;
    let before = generation(&mut bench, 0);
    bench.write(dom0, "/elsewhere", "").unwrap();
    assert_eq!(generation(&mut bench, 0), before);
    bench.write(dom0, "/big/new", "").unwrap();
    assert_ne!(generation(&mut bench, 0), before);
    let tx = bench.begin(dom0).unwrap();
    let first = generation(&mut bench, tx);
    bench.write_in(dom0, tx, "/big/newer", "").unwrap();
    let second = generation(&mut bench, tx);
    bench.write_in(dom0, tx, "/big/newest", "").unwrap();
    let third = generation(&mut bench, tx);
    assert!(first != second && second != third);
}

#[test]
fn small_lists_come_in_one_part() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.write(dom0, "/a/b", "").unwrap();
    let (_, bytes, last) = part(&mut bench, dom0, 0, "/a", 0);
    assert!(bytes == b"b\0" && last);
    let (_, bytes, last) = part(&mut bench, dom0, 0, "/a/b", 0);
    assert!(bytes.is_empty() && last);
}

#[test]
fn every_length_of_list_is_whole() {
    // Around the border of one message, byte by byte.
    for length in 40..60 {
        let mut bench = Bench::new();
        let dom0 = bench.dom0;
        let mut names: Vec<_> = (0..67).map(|node| format!("{node:0>59}")).collect();
        names.push("x".repeat(length));
        for name in &names {
            bench.write(dom0, &format!("/big/{name}"), "").unwrap();
        }
        let mut all = Vec::new();
        while {
            let (_, bytes, last) = part(&mut bench, dom0, 0, "/big", all.len());
            assert!(!bytes.is_empty() || last, "progress");
            all.extend(bytes);
            !last
        } {}
        assert_eq!(all, wire::strings(&names));
    }
}
