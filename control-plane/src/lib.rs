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
//! | [`observe`] | what sidecars run and see: asked of them, served to people |
//! | [`admin`] [`metrics`] [`telemetry`] | pages, counters, spans |
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
mod metrics_listed;
pub mod net;
pub mod observe;
pub mod settings;
pub mod shutdown;
pub mod source;
pub mod telemetry;
pub mod xds;

use std::{ffi::OsString, io::Write as _, process::ExitCode, sync::Arc};

use clap::Parser as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

pub use check::{Report, check};
use observe::logging::Logging;
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
    let (layer, spans) = match telemetry::layer(&settings) {
        Ok(made) => made.unzip(),
        Err(error) => return fail(&error),
    };
    let logging = log_to_stderr(&settings.log, layer);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(app::run(settings, spans, logging)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Logging may not have begun.
    let _closed = writeln!(std::io::stderr(), "pillion-control-plane: {error:#}");
    ExitCode::FAILURE
}

/// `spans` takes what is traced.
fn log_to_stderr(filter: &str, spans: Option<impl Layer<Registry> + Send + Sync>) -> Arc<Logging> {
    let (filter, text) = match EnvFilter::try_new(filter) {
        Ok(valid) => (valid, filter),
        Err(_) => (EnvFilter::new("info"), "info"),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let subscriber = tracing_subscriber::registry().with(spans).with(filter).with(lines);
    // Fails when a logger is there already, which then serves as well.
    let is_ours = subscriber.try_init().is_ok();
    Logging::new(text, move |filter| {
        if !is_ours {
            return Err("the log belongs to another part of this program".to_owned());
        }
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}
