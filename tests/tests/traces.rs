//! A trace of both ends, as a viewer reads it: well formed, whole, and in order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use blkif_observe::trace::{End, Request, Trace};

fn xensim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xensim"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

const WORK: &str = r#"qemu-io -f raw -c 'write 0 64k' -c 'read 0 300k' -c 'write 1k 1k' -c 'discard 0 32k' \
    -c 'aio_write 4M 4k' -c 'aio_write 5M 4k' -c 'aio_read 5M 512k' -c 'aio_flush' -c 'read 7M 1M' "$BLKIF_NBD_URI""#;

const FRONTEND: [&str; 6] = ["submit", "lend", "admit", "publish", "backend", "complete"];
const BACKEND: [&str; 7] = ["ring", "admit", "map", "submit", "storage", "copy out", "respond"];

/// Every request of a trace by device, queue and id.
fn by_name(trace: &Trace, end: End) -> BTreeMap<(String, u32, String), &Request> {
    let own = trace.requests.iter().filter(|request| request.name.end == end);
    own.map(|request| {
        let name = &request.name;
        ((name.device.clone(), name.queue, name.id.clone()), request)
    })
    .collect()
}

fn check_stages(request: &Request, stages: &[&str]) {
    let names: Vec<&str> = request.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, stages, "{:?}", request.name);
    for (stage, next) in request.stages.iter().zip(&request.stages[1..]) {
        // Written as microseconds with fractions.
        assert!(stage.begin <= stage.end && stage.end.abs_diff(next.begin) <= 2, "{request:?}");
    }
    assert!(request.begin() < request.end(), "{request:?}");
}

fn check(file: &Path) -> usize {
    let trace = Trace::read(&fs::read(file).unwrap()).unwrap();
    let (frontend, backend) = (by_name(&trace, End::Frontend), by_name(&trace, End::Backend));
    assert_eq!(frontend.len() + backend.len(), trace.requests.len(), "an id is there twice");
    assert!(frontend.keys().eq(backend.keys()), "each end has the other's requests");
    for (front, back) in frontend.values().zip(backend.values()) {
        check_stages(front, &FRONTEND);
        check_stages(back, &BACKEND);
        let (one, other) = (&front.name, &back.name);
        assert_eq!(
            (&one.op, one.sector, one.bytes, one.status),
            (&other.op, other.sector, other.bytes, other.status)
        );
        // The answer was read after it was written, and the request taken after it was published.
        let at = |request: &Request, name: &str| {
            request.stages.iter().find(|stage| stage.name == name).unwrap().end
        };
        assert!(at(back, "copy out") <= at(front, "backend"), "{front:?} {back:?}");
        assert!(at(front, "admit") <= at(back, "ring"), "{front:?} {back:?}");
    }
    backend.len()
}

#[test]
fn a_trace_of_both_ends_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.json");
    let path = file.to_str().unwrap();
    for tuning in [
        &[][..],
        &["--segments", "indirect", "--strategy", "copy"],
        &["--abi", "x86_32", "--segments", "direct"],
    ] {
        let run = [&["run", "--size", "16", "--trace", path][..], tuning, &["--", "sh", "-c", WORK]].concat();
        let output = xensim(&run);
        assert!(output.status.success(), "{}", text(&output));
        assert!(check(&file) >= 15, "{tuning:?}");
    }
}

#[test]
fn blkctl_traces_a_disk_while_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.json");
    let script = format!(
        r#"ctl() {{ blkctl --run-dir "${{BLKIF_WORLD#sim:}}/blkback-0" "$@"; }}
        ctl trace 1/xvda --requests 20 --seconds 30 --output {} & traced=$!
        while kill -0 $traced 2>/dev/null; do qemu-io -f raw -c 'read 0 64k' "$BLKIF_NBD_URI" >/dev/null || exit 9; done
        wait $traced || exit 8
        ctl trace 1/xvda --requests 0; [ $? -eq 2 ] || exit 7
        ctl trace 7/xvda; [ $? -eq 3 ]"#,
        file.display()
    );
    let output = xensim(&["run", "--size", "16", "--", "sh", "-c", &script]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("20 requests"), "{}", text(&output));
    let trace = Trace::read(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(trace.requests.len(), 20);
    for request in &trace.requests {
        assert_eq!((request.name.end, request.name.device.as_str()), (End::Backend, "1/51712"));
        check_stages(request, &BACKEND);
    }
}

#[test]
fn a_place_where_nothing_can_be_written_is_told_at_once() {
    let output = xensim(&["run", "--size", "4", "--trace", "/nonexistent/trace.json", "--", "true"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("/nonexistent/trace.json"), "{}", text(&output));
}
