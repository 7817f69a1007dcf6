//! `pillion top`: a live table of who calls whom in the mesh, from what sidecars report to the control plane.

mod table;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tokio::time::{MissedTickBehavior, interval};

use crate::{duration::parse_duration, locate};
use table::{Graph, Sort};

/// Settings of `pillion top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is an edge: requests per second, the share that succeeded, latencies, mutual TLS, and bytes of TCP connections,
over the last seconds as --window says. Edges of callers that do not report are told by the callee, marked with *.
Exit status: 0; 1 when the control plane does not answer (with --once; else it is asked again).

Examples:
  pillion top
  pillion top --once --namespace shop --sort p99
  pillion top --once --output json | jq '.edges[] | select(.success_rate // 1 < 0.99)'")]
pub(crate) struct Top {
    #[command(flatten)]
    which: locate::Which,
    /// Only this namespace, and what it talks with.
    #[arg(long)]
    namespace: Option<String>,
    /// What rates and latencies are over: 5s to 15m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    window: Duration,
    /// How often the table is drawn anew.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2s")]
    every: Duration,
    /// Which edges come first.
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    sort: Sort,
    /// Edges that are shown, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 40)]
    rows: usize,
    /// Show it once and end.
    #[arg(long)]
    once: bool,
    /// As a table, or as the control plane's JSON (an object per line unless --once).
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Shows the table until it is interrupted.
pub(crate) fn run(settings: &Top) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(Box::pin(show(settings))) {
        // Whoever read has had enough: `| head`.
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

async fn show(settings: &Top) -> anyhow::Result<()> {
    let mut ticks = interval(settings.every.max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let in_place = io::stdout().is_terminal() && !settings.once && settings.output == Output::Table;
    let mut admin = settings.which.find().await;
    loop {
        ticks.tick().await;
        let text = match ask(settings, admin).await {
            Ok(text) => text,
            Err(error) if settings.once => return Err(error),
            Err(error) => {
                // It may have been started anew, somewhere else.
                admin = settings.which.find().await;
                format!("{error:#}; trying again\n")
            }
        };
        let mut out = io::stdout().lock();
        if in_place {
            // Home, then erase what was there.
            out.write_all(b"\x1b[H\x1b[2J")?;
        }
        out.write_all(text.as_bytes())?;
        if settings.once {
            return Ok(out.flush()?);
        }
        if !in_place && settings.output == Output::Table {
            writeln!(out)?;
        }
        out.flush()?;
    }
}

async fn ask(settings: &Top, admin: SocketAddr) -> anyhow::Result<String> {
    let mut path = format!("/api/v1/graph?window={}", settings.window.as_secs());
    if let Some(namespace) = &settings.namespace {
        if !pillion_wire::label::is_label(namespace) {
            bail!("--namespace {namespace}: that is no name of a namespace");
        }
        path.push_str(&format!("&namespace={namespace}"));
    }
    let said: serde_json::Value = locate::json(admin, &path).await?;
    if settings.output == Output::Json {
        return Ok(format!("{said}\n"));
    }
    let graph: Graph = serde_json::from_value(said).context("the control plane's answer is not understood")?;
    Ok(table::render(graph, settings.sort, settings.rows))
}
