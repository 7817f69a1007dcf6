//! `pillion check DIR`: what the control plane would say about a folder of documents.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

/// Settings of `pillion check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line names the file, the line, the object, the field and the reason. A refused object never hurts its neighbours.
Exit status: 0 when every object is accepted (warnings are allowed), 1 when one is refused, 2 when the folder cannot be
read.

Examples:
  pillion check shop/
  pillion check shop/ --json")]
pub(crate) struct Check {
    /// Folder with the documents; nested folders are read too.
    dir: PathBuf,
    /// Print the report as JSON: accepted, errors[] and warnings[] {file, line, severity, object, field, reason}.
    #[arg(long)]
    json: bool,
}

/// Prints the report.
pub(crate) fn run(settings: &Check) -> anyhow::Result<ExitCode> {
    let report = match pillion_control_plane::check(&settings.dir) {
        Ok(report) => report,
        Err(error) => {
            writeln!(std::io::stderr(), "pillion: {error}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let text = if settings.json { serde_json::to_string_pretty(&report)? } else { report.to_string() };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
