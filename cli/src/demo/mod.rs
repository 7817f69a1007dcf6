//! `pillion demo`: a small shop in a mesh of its own, with load, an edited route and an accident.
//!
//! Everything that is shown is measured: by the customers who send the load, and by the sidecars, whose metrics pages
//! are read every second. All processes are children of this one, on free loopback ports, with their documents in a
//! temporary folder; nothing of it is left when the demo ends.

mod documents;
mod edges;
mod load;
mod screen;
mod story;
mod summary;

use std::{io::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{
    child::LogMode,
    documents as folder_of_documents,
    duration::parse_duration,
    run::{
        Interrupts, SidecarDefaults, Telemetry,
        mesh::{CONTROL_PLANE, LocalMesh, MeshSettings},
    },
};
use documents::Shop;
use screen::Screen;
use story::{Plan, Story};

const READY_DEADLINE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_secs(6);
/// Percent of payment that goes to v1, before and after the edit.
const SPLITS: [u32; 2] = [90, 50];

/// Settings of `pillion demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
A customer buys at `web`, web calls orders, orders calls inventory (gRPC), payment (HTTP, two versions) and ledger (TCP).
Half-way the demo edits the HTTPRoute of payment from 90/10 to 50/50; at three quarters it kills one instance of payment.
Exit status: 0 when every edge was mutual TLS with the right peer, the split followed, and no request failed but around
the kill; 1 with the reasons when not; 130 on Ctrl-C.

Examples:
  pillion demo
  pillion demo --duration 1m --rate 200
  pillion demo --json > summary.json")]
pub(crate) struct Demo {
    /// How long the load lasts, at least 6s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "20s")]
    duration: Duration,
    /// Requests per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Print the summary as JSON on standard output, and everything else on standard error.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    telemetry: Telemetry,
}

/// How a demo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It showed what it promises.
    Well,
    /// Somebody wanted it to stop.
    Interrupted,
}

/// Runs the demo.
pub(crate) fn run(settings: &Demo) -> anyhow::Result<Ended> {
    if settings.duration < SHORTEST {
        bail!("--duration: the demo needs at least {} s to tell its story", SHORTEST.as_secs());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(async {
        let mut interrupts = Interrupts::new()?;
        let folder = tempfile::Builder::new().prefix("pillion-demo-").tempdir().context("no temporary folder")?;
        let mut screen = Screen::new(settings.json);
        let shop = set_up(folder.path())?;
        let mut mesh = tokio::select! {
            mesh = LocalMesh::start(mesh_settings(folder.path(), &settings.telemetry), LogMode::Keep) => mesh?,
            () = interrupts.next() => return Ok(Ended::Interrupted),
        };
        let outcome = tokio::select! {
            outcome = show(settings, &shop, &mut mesh, &mut screen) => outcome.map(|()| Ended::Well),
            () = interrupts.next() => Ok(Ended::Interrupted),
        };
        let stop_now = mesh.family.stop_now();
        tokio::select! {
            () = mesh.family.stop_all(CONTROL_PLANE, GRACE) => {}
            () = interrupts.next() => stop_now(),
        }
        folder.close().context("cannot remove the demo's temporary folder")?;
        outcome
    }))
}

/// Writes the documents, and makes the folder for the keys.
fn set_up(folder: &std::path::Path) -> anyhow::Result<Shop> {
    let (config, state) = (folder.join("config"), folder.join("state"));
    crate::certs::files::private_folder(&config)?;
    crate::certs::files::private_folder(&state)?;
    let [before, _] = SPLITS;
    Shop::write(&config, before).context("cannot write the shop's documents")
}

fn mesh_settings(folder: &std::path::Path, telemetry: &Telemetry) -> MeshSettings {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    MeshSettings {
        config: folder.join("config"),
        state: folder.join("state"),
        listen: any,
        admin: any,
        dashboard: Some(any.to_string()),
        sidecars: SidecarDefaults {
            trust_domain: "cluster.local".to_owned(),
            drain_deadline: GRACE / 2,
            // Eight sidecars on one machine, each of which would take all CPUs for itself.
            workers: Some(1),
            telemetry: telemetry.clone(),
        },
    }
}

async fn show(settings: &Demo, shop: &Shop, mesh: &mut LocalMesh, screen: &mut Screen) -> anyhow::Result<()> {
    screen.note("control plane: ready")?;
    for process in shop.processes() {
        mesh.family.start(process);
    }
    let workloads = folder_of_documents::follow(shop.folder())?.borrow().clone();
    mesh.reconcile(&workloads, GRACE).await?;
    screen.note(&format!("waiting for {} sidecars and {} services", mesh.sidecars(), shop.processes().len()))?;
    if let Err(error) = mesh.family.ready(READY_DEADLINE).await {
        bail!("{error}{}", logs_of_the_unready(mesh));
    }
    screen.note("all ready")?;
    if let Some(dashboard) = mesh.dashboard() {
        screen.note(&format!("dashboard: {dashboard}"))?;
    }
    let plan = Plan { duration: settings.duration, rate: settings.rate, splits: SPLITS };
    let mut story = Story::new(plan, shop, mesh, screen);
    let (summary, complaints) = Box::pin(story.tell()).await?;
    if settings.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&summary)?)?;
    }
    if !complaints.is_empty() {
        bail!("the demo did not show what it promises:\n  {}", complaints.join("\n  "));
    }
    Ok(())
}

/// The last lines of those that are not ready.
fn logs_of_the_unready(mesh: &LocalMesh) -> String {
    let mut text = String::new();
    for (name, status) in mesh.board() {
        if status.state != crate::child::State::Ready {
            text.push_str(&format!("\n{name}: {}\n", status.state));
            for line in mesh.family.log_of(&name).iter().rev().take(10).rev() {
                text.push_str(&format!("    {line}\n"));
            }
        }
    }
    text
}
