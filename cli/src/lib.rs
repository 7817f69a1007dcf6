//! The `pillion` command: what a person types to run, try and check a mesh on one machine.

mod certs;
mod check;
mod child;
mod client;
mod command;
mod demo;
mod documents;
mod duration;
mod explain;
mod locate;
pub mod metrics;
mod ps;
mod run;
mod shop;
mod tap;
mod top;

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
        Command::Demo(settings) => return demonstrate(&settings),
        Command::Proxy { arguments } => return pillion_proxy::main(with_name("pillion proxy", arguments)),
        Command::ControlPlane { arguments } => {
            return pillion_control_plane::main(with_name("pillion control-plane", arguments));
        }
        Command::Check(settings) => return check::run(&settings).unwrap_or_else(|error| fail(&error)),
        Command::Explain(settings) => return explain::run(&settings),
        Command::Run(settings) => return run::run(settings),
        Command::Launch(settings) => return run::launch::launch(&settings),
        Command::Keeper(settings) => return run::keeper::keep(&settings),
        Command::Ps(settings) => ps::run(&settings),
        Command::Tap(settings) => tap::run(&settings),
        Command::Top(settings) => top::run(&settings),
        Command::Certs(certs) => certs::run(&certs),
        Command::Shop { role } => shop::run(role),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The arguments of a program that is part of ours, its name first.
fn with_name(name: &str, arguments: Vec<OsString>) -> impl Iterator<Item = OsString> {
    std::iter::once(name.into()).chain(arguments)
}

fn demonstrate(settings: &demo::Demo) -> ExitCode {
    match demo::run(settings) {
        Ok(demo::Ended::Well) => ExitCode::SUCCESS,
        // What a shell says of a program that SIGINT ended.
        Ok(demo::Ended::Interrupted) => ExitCode::from(130),
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "pillion: {error:#}");
    ExitCode::FAILURE
}
