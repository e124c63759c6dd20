use super::*;

fn request(end: End, id: u64, begin: u64, stages: &[(&str, u64)]) -> Request {
    let (device, op) = ("1/51712".into(), "read".into());
    let name = Name { end, device, queue: 0, id: format!("{id:x}"), op, sector: 8, bytes: 4096, status: 0 };
    Request::new(name, begin, stages)
}

fn sample() -> Trace {
    let base = 66_534_543_123_457;
    let front = |id, at: u64| {
        request(
            End::Frontend,
            id,
            at,
            &[("submit", at + 10), ("publish", at + 1001), ("wait", at + 9000), ("complete", at + 9100)],
        )
    };
    let back = |id, at| {
        request(End::Backend, id, at, &[("ring", at + 5), ("storage", at + 5000), ("respond", at + 5100)])
    };
    let requests = vec![
        front(u64::MAX, base),
        front(7, base + 500),
        back(u64::MAX, base + 2000),
        back(7, base + 2001),
        front(7, base + 20_000),
        back(7, base + 22_000),
    ];
    Trace { requests }
}

fn events(trace: &Trace) -> Vec<serde_json::Value> {
    let mut text = Vec::new();
    trace.write(&mut text).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
    file["traceEvents"].as_array().unwrap().clone()
}

#[test]
fn what_is_written_is_read() {
    let mut text = Vec::new();
    sample().write(&mut text).unwrap();
    let mut expected = sample();
    expected.requests.sort_by_key(Request::begin);
    assert_eq!(Trace::read(&text).unwrap(), expected);
    assert!(Trace::read(b"{}").is_err() && Trace::read(b"").is_err());
}

#[test]
fn no_two_slices_of_a_row_cross() {
    let events = events(&sample());
    let slices: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    let span = |event: &serde_json::Value| {
        let begin = event["ts"].as_f64().unwrap();
        (begin, begin + event["dur"].as_f64().unwrap())
    };
    for one in &slices {
        for other in &slices {
            if (&one["pid"], &one["tid"]) != (&other["pid"], &other["tid"]) {
                continue;
            }
            let ((a, b), (c, d)) = (span(one), span(other));
            let apart = b <= c + 1e-6 || d <= a + 1e-6;
            let nested = a <= c + 1e-6 && d <= b + 1e-6 || c <= a + 1e-6 && b <= d + 1e-6;
            assert!(apart || nested, "{one} {other}");
        }
    }
}

#[test]
fn arrows_join_the_ends_there_and_back() {
    let events = events(&sample());
    let arrows: Vec<_> = events.iter().filter(|event| event["cat"] == "ring").collect();
    assert_eq!(arrows.len(), 3 * 2 * 2);
    for pair in arrows.chunks(2) {
        assert_eq!((&pair[0]["ph"], &pair[1]["ph"]), (&json!("s"), &json!("f")));
        assert_eq!(pair[0]["id"], pair[1]["id"]);
        assert_ne!(pair[0]["pid"], pair[1]["pid"], "from one end to the other");
        assert!(pair[0]["ts"].as_f64() <= pair[1]["ts"].as_f64(), "not back in time");
    }
}

#[test]
fn a_stage_that_was_left_out_takes_no_time() {
    let request = request(End::Backend, 1, 100, &[("ring", 120), ("map", 0), ("storage", 150)]);
    let times: Vec<_> = request.stages.iter().map(|stage| (stage.begin, stage.end)).collect();
    assert_eq!(times, [(100, 120), (120, 120), (120, 150)]);
}
