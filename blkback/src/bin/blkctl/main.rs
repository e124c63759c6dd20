//! `blkctl`: what a daemon serves, and what is to become of it.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use blkback::ctl::{
    client::{Client, ClientError},
    protocol::{Answer, FailureKind},
};
use clap::{CommandFactory as _, Parser as _};

mod cli;
mod print;

use cli::{Arguments, Word};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("blkctl: {error}");
            code_of(&error)
        }
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Daemon(#[from] ClientError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// As the help says.
fn code_of(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::Daemon(ClientError::Unreachable { cause, .. })
            if cause.kind() == io::ErrorKind::PermissionDenied =>
        {
            4
        }
        Error::Daemon(ClientError::Unreachable { .. } | ClientError::Silent(_)) => 5,
        Error::Daemon(ClientError::Refused(failure)) => match failure.kind {
            FailureKind::Malformed => 2,
            FailureKind::NoSuchDisk => 3,
            FailureKind::Forbidden => 4,
            FailureKind::Unsupported | FailureKind::Version => 6,
            FailureKind::NotNow => 7,
            FailureKind::Failed => 1,
        },
        Error::Daemon(ClientError::Answer(_)) | Error::Io(_) | Error::Json(_) => 1,
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    if let Some(command) = arguments.command.command() {
        let in_run_dir = || arguments.run_dir.join("control.sock");
        let socket = arguments.socket.clone().unwrap_or_else(in_run_dir);
        let answer = Client::connect(&socket)?.ask(command)?;
        if let (Answer::Trace(trace), Word::Trace { output, .. }) = (&answer, &arguments.command) {
            let named =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", output.display()));
            fs::write(output, serde_json::to_vec(trace)?).map_err(named)?;
        }
        let text =
            if arguments.json { serde_json::to_string_pretty(&answer)? + "\n" } else { print::text(&answer) };
        return say(&text);
    }
    match &arguments.command {
        Word::Upgrade { program, patience } => {
            let program = program.clone().map_or_else(installed, Ok)?;
            upgrade(&program, &arguments.run_dir, *patience)
        }
        Word::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "blkctl", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
        Word::Man { folder } => {
            clap_mangen::generate_to(Arguments::command(), folder)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A reader that has seen enough is no failure.
fn say(text: &str) -> Result<ExitCode, Error> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The daemon's program that came with this one: beside it, as it is built, or in `sbin` beside its `bin`, as it is installed.
fn installed() -> io::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("blkback");
    let in_sbin = beside.parent().map(|bin| bin.with_file_name("sbin").join("blkback"));
    Ok(in_sbin.filter(|program| !beside.exists() && program.exists()).unwrap_or(beside))
}

/// The new program asks for its place itself: only it knows what it can take over.
fn upgrade(program: &Path, run_dir: &Path, patience: u64) -> Result<ExitCode, Error> {
    let status = Command::new(program)
        .arg("upgrade")
        .arg("--run-dir")
        .arg(run_dir)
        .arg("--patience")
        .arg(patience.to_string())
        .status()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
