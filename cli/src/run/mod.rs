//! `pillion run`: the mesh of a folder of documents, or one program as a workload of this machine's mesh.

mod display;
mod folder;
pub(crate) mod mesh;
mod plan;
mod program;
mod telemetry;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

pub(crate) use folder::Interrupts;
pub(crate) use plan::SidecarDefaults;
pub(crate) use program::{default_home, keeper, launch};
pub(crate) use telemetry::Telemetry;

/// Settings of `pillion run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "pillion run DIR [OPTIONS]\n       pillion run --name NAME [--port PORT]... [OPTIONS] -- COMMAND...",
    after_long_help = program::HELP,
    after_help = "Examples, what works inside and what does not: pillion run --help"
)]
pub(crate) struct Run {
    /// Folder with the documents: Service, Workload, HTTPRoute, GRPCRoute, TCPRoute, TLSRoute. Each Workload with `mesh` whose
    /// address is one of this machine gets a sidecar with the ports that its document says (spec.sidecar: outbound, tcp,
    /// admin, health; where it says nothing, a free port, which is shown). The documents may be edited while the mesh
    /// runs. The applications themselves are yours to start.
    #[arg(conflicts_with_all = ["name", "command"])]
    dir: Option<PathBuf>,
    #[command(flatten)]
    folder: folder::Folder,
    #[command(flatten)]
    program: program::Program,
    #[command(flatten)]
    telemetry: Telemetry,
}

const NEITHER: &str = "\
pillion run needs a folder of documents, or a program and its name:

  pillion run shop/                                         a control plane, and a sidecar for each Workload of shop/
  pillion run --name hello --port 8080 -- python3 -m http.server 8080
                                                            this program, in the mesh of this machine, as `hello`
  pillion run --name client -- curl http://hello:8080/      and one that calls it

More: pillion run --help";

/// Runs a folder's mesh, or a program.
pub(crate) fn run(settings: Run) -> ExitCode {
    match (&settings.dir, settings.program.is_given()) {
        (Some(dir), _) => match folder::run(dir, &settings.folder, &settings.telemetry) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => crate::fail(&error),
        },
        (None, true) => program::run(settings.program, settings.folder.grace, settings.telemetry),
        (None, false) => {
            let _closed = writeln!(std::io::stderr(), "{NEITHER}");
            ExitCode::from(2)
        }
    }
}
