use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn is_running(pid: u32) -> bool {
    // A zombie counts as ended: it runs nothing.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn dropping_a_process_ends_it() {
    let process = Process::spawn("sleep", &mut shell("exec sleep 60")).unwrap();
    let pid = process.id();
    assert!(is_running(pid));
    drop(process);
    assert!(!is_running(pid));
}

#[test]
fn an_early_end_is_told_with_the_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut process =
        Process::spawn_logged("talker", &mut shell("echo no such disk >&2; exit 3"), &dir.path().join("log"))
            .unwrap();
    let error = wait_until("its end", Duration::from_secs(5), || process.check_alive().map(|()| None::<()>))
        .unwrap_err()
        .to_string();
    assert!(error.contains("talker ended early: exit status: 3"), "{error}");
    assert!(error.contains("no such disk"), "{error}");
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_on_drop() {
    let process =
        Process::spawn("stubborn", &mut shell("trap '' TERM; while :; do sleep 0.1; done")).unwrap();
    let pid = process.id();
    // Give the shell time to set its trap.
    thread::sleep(Duration::from_millis(200));
    drop(process);
    assert!(!is_running(pid));
}

#[test]
fn waiting_gives_up_and_says_for_what() {
    let error = wait_until("godot", Duration::from_millis(10), || Ok(None::<()>)).unwrap_err();
    assert!(error.to_string().contains("in vain for godot"), "{error}");
}

#[test]
fn a_missing_program_is_named() {
    let error = Process::spawn("ghost", &mut Command::new("/nonexistent/ghost")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/ghost"), "{error}");
}
