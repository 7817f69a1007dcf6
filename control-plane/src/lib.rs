//! The Pillion control plane: reads a directory of documents, tells sidecars what
//! to do over xDS, and gives them their certificates.
//!
//! ```text
//! source (files) ── document ──> index ── core ──> xds ── net ──> sidecars
//!                                                  ca ───┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`source`] | the directory: scanning, watching, the last good version of each object |
//! | [`document`] | YAML to objects, with lines and field paths |
//! | [`core`] | the domain: services, workloads, routes, and the mesh they make |
//! | [`index`] | objects to a published catalog |
//! | [`xds`] | resources by dialect, delta and state-of-the-world streams |
//! | [`ca`] | root, intermediate, signing, join tokens |
//! | [`load`] | load reports (LRS): what clients say of their traffic, the last minutes of it |
//! | [`dashboard`] | graph and JSON API, the page, log-in |
//! | [`net`] | the TLS port |
//! | [`caller`] | who is calling |
//! | [`admin`] [`metrics`] | pages and counters |
//! | [`mod@check`] | the same validation, for `pillion check` |
//! | [`app`] [`settings`] | wiring and flags |

pub mod admin;
pub mod app;
pub mod ca;
pub mod caller;
pub mod check;
pub mod core;
pub mod dashboard;
pub mod document;
pub mod index;
pub mod load;
pub mod metrics;
pub mod net;
pub mod settings;
pub mod shutdown;
pub mod source;
pub mod xds;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

pub use check::{Report, check};
use settings::Settings;

/// The program: parses `args` (the first is its name), runs until SIGTERM or
/// SIGINT. Logs go to standard error; standard output gets one line when ready.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let settings = match Settings::try_parse_from(args) {
        Ok(settings) => settings,
        Err(error) => {
            // Help goes to standard output and is no failure.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails when a logger is there already, which then serves as well.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(app::run(settings)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
