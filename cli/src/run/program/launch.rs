//! `pillion launch`: the last step before the program, in the process that becomes the program.
//!
//! It does what must be done in that process itself: its life is tied to ours already (see `child::lifeline`), signals
//! that we blocked come through again, it gets a process group of its own where there is no terminal.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use clap::Args;
use nix::{
    sys::signal::{SigSet, Signal},
    unistd::{Pid, setpgid},
};

use crate::child::lifeline;

/// What shells say of a program that is not there.
const NOT_FOUND: u8 = 127;
/// What shells say of a program that cannot be run.
const NOT_EXECUTABLE: u8 = 126;

/// Settings of `pillion launch`.
#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// Signals that stay blocked, by number.
    #[arg(long, value_delimiter = ',')]
    blocked: Vec<i32>,
    /// Whether the program gets a process group of its own.
    #[arg(long)]
    own_group: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program. Returns only when that fails.
pub(crate) fn launch(settings: &Launch) -> ExitCode {
    let Some((program, arguments)) = settings.command.split_first() else { return ExitCode::from(NOT_FOUND) };
    let error = match prepare(settings) {
        Ok(()) => Command::new(program).args(arguments).env_remove(lifeline::PARENT).exec(),
        Err(error) => error,
    };
    let said = if is_missing(program, &error) { "no such program".to_owned() } else { error.to_string() };
    let _closed = writeln!(io::stderr(), "pillion: {}: {said}", program.to_string_lossy());
    ExitCode::from(if is_missing(program, &error) { NOT_FOUND } else { NOT_EXECUTABLE })
}

/// Whether there is no such program. `execvp` says so in other words when PATH has a folder that we may not enter.
fn is_missing(program: &OsStr, error: &io::Error) -> bool {
    let searched = || !program.as_encoded_bytes().contains(&b'/');
    let found = || {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
    };
    match error.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::PermissionDenied => searched() && !found(),
        _ => false,
    }
}

fn prepare(settings: &Launch) -> io::Result<()> {
    if settings.own_group {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    }
    let signals = settings.blocked.iter().filter_map(|number| Signal::try_from(*number).ok());
    Ok(signals.collect::<SigSet>().thread_set_mask()?)
}
