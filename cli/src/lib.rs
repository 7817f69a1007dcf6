//! The `pillion` command: what a person types to run, try and check a mesh on one machine.

mod certs;
mod child;
mod client;
mod command;
mod duration;
pub mod metrics;
mod shop;

use std::{ffi::OsString, io::Write as _, process::ExitCode};

use clap::Parser as _;
use command::{Cli, Command};

/// Runs the command that these arguments (the program's name first) name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Err(error) = child::lifeline::hold() {
        return fail(&error.into());
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, mistakes to standard error; either may be closed.
            let _closed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match cli.command {
        Command::Certs(certs) => certs::run(&certs),
        Command::Shop { role } => shop::run(role),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "pillion: {error:#}");
    ExitCode::FAILURE
}
