//! What can be typed: the arguments of `pillion`, and who acts on them.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::{certs, check, demo, explain, ps, run, shop, tap, top};

const ABOUT: &str = "Pillion, a service mesh: run it, try it, check its documents.

Every workload gets a sidecar, a proxy that takes over its traffic; a control plane tells the sidecars what to do, from
YAML documents: Kubernetes' Service, the Gateway API's HTTPRoute, GRPCRoute, TCPRoute and TLSRoute, and our own Workload.";

const EXAMPLES: &str = "Examples:
  pillion demo                     a small shop in a mesh of its own, with load, for 20 seconds
  pillion run --name hello --port 8080 -- python3 -m http.server 8080
                                   this program in the mesh of this machine, knowing nothing of it
  pillion run shop/                a control plane and a sidecar for each Workload of the folder
  pillion check shop/              what is wrong with the folder's documents, by file, line and field
  pillion ps                       what each sidecar runs
  pillion tap --status 5xx         requests that fail, as they do
  pillion top                      who calls whom in the mesh of this machine, live
  pillion explain --from web GET http://orders.shop/ shop/
                                   what would become of that request, and which lines say so
  pillion certs root --out ca/     a root for development

Every command explains itself: pillion run --help";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "pillion", version, about = "Pillion, a service mesh", long_about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a small shop in a mesh of its own, with load.
    Demo(demo::Demo),

    /// Run a program in the mesh of this machine; or the mesh of a folder of documents, a sidecar for each Workload.
    Run(run::Run),

    /// Say what is wrong with a folder of documents, by file, line and field.
    Check(check::Check),

    /// Say what would become of a request, from a folder of documents alone; or what a reason code means.
    Explain(explain::Explain),

    /// Show what each sidecar runs: state, configuration against the newest, certificate, what it refused.
    Ps(ps::Ps),

    /// Show requests of the mesh as they happen.
    Tap(tap::Tap),

    /// Show who calls whom, live: rate, success, latency, mutual TLS.
    Top(top::Top),

    /// Make certificates and join tokens for development.
    #[command(subcommand)]
    Certs(certs::Certs),

    /// Run one sidecar: the same as the program pillion-proxy.
    #[command(disable_help_flag = true)]
    Proxy {
        /// See `pillion proxy --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },

    /// Run one control plane: the same as the program pillion-control-plane.
    #[command(disable_help_flag = true)]
    ControlPlane {
        /// See `pillion control-plane --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },

    /// Becomes the program of `pillion run --name`, inside its namespace.
    #[command(hide = true)]
    Launch(run::launch::Launch),

    /// Cleans up after a `pillion run --name` that was killed.
    #[command(hide = true)]
    Keeper(run::keeper::KeeperSettings),

    /// One service of the demo's shop.
    #[command(hide = true)]
    Shop {
        #[command(subcommand)]
        role: shop::Role,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_the_two_programs_are_passed_on_as_they_are() {
        let cli = Cli::try_parse_from(["pillion", "proxy", "--help", "--bootstrap", "x"]).unwrap();
        assert!(matches!(cli.command, Command::Proxy { arguments } if arguments == ["--help", "--bootstrap", "x"]));
    }
}
