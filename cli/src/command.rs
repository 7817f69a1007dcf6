//! What can be typed: the arguments of `pillion`, and who acts on them.

use clap::{Parser, Subcommand};

use crate::{certs, shop};

const ABOUT: &str = "Pillion, a service mesh: run it, try it, check its documents.

Every workload gets a sidecar, a proxy that takes over its traffic; a control plane tells the sidecars what to do, from
YAML documents: Kubernetes' Service, the Gateway API's HTTPRoute, GRPCRoute and TCPRoute, and our own Workload.";

const EXAMPLES: &str = "Examples:
  pillion demo                     a small shop in a mesh of its own, with load, for 20 seconds
  pillion run shop/                a control plane and a sidecar for each Workload of the folder
  pillion check shop/              what is wrong with the folder's documents, by file, line and field
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
    /// Make certificates and join tokens for development.
    #[command(subcommand)]
    Certs(certs::Certs),

    /// One service of the demo's shop.
    #[command(hide = true)]
    Shop {
        #[command(subcommand)]
        role: shop::Role,
    },
}
