//! `pillion run DIR`: a mesh on this machine, in the foreground, until Ctrl-C.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use pillion_control_plane::settings::DashboardAddress;
use pillion_wire::spiffe::TrustDomain;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::interval,
};

use super::{
    display::{self, Display},
    mesh::{CONTROL_PLANE, LocalMesh, MeshSettings, TOKEN_RENEWAL},
    plan::SidecarDefaults,
    telemetry::Telemetry,
};
use crate::{
    child::LogMode,
    documents::{self, Workloads},
    duration::parse_duration,
};

/// Settings of `pillion run DIR`.
#[derive(Debug, Args)]
#[command(next_help_heading = "A folder")]
pub(super) struct Folder {
    /// Folder for the control plane's state (its keys). Default: a temporary one, removed at the end.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where the control plane serves xDS and the CA.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15010")]
    listen: SocketAddr,
    /// The control plane's admin pages.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
    /// Where the control plane serves the dashboard, or `off` [default: 127.0.0.1:15016, or a free port]
    #[arg(long, value_name = "IP:PORT|off")]
    dashboard: Option<DashboardAddress>,
    /// The trust domain of the mesh.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// How long requests in flight, and processes that a program leaves behind, may take to end.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    pub(super) grace: Duration,
    /// Do not show the processes' logs.
    #[arg(long)]
    quiet: bool,
}

/// Runs the mesh until SIGINT or SIGTERM.
pub(super) fn run(dir: &Path, settings: &Folder, telemetry: &Telemetry) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(serve(dir, settings, telemetry)))
}

async fn serve(dir: &Path, settings: &Folder, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut interrupts = Interrupts::new()?;
    let temporary = match settings.state {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("pillion-run-").tempdir().context("no temporary folder")?),
    };
    let folder = temporary.as_ref().map(|folder| folder.path().to_owned()).or_else(|| settings.state.clone());
    let state = folder.context("no folder for the state")?;
    crate::certs::files::private_folder(&state)?;
    let parts = MeshSettings {
        config: dir.to_owned(),
        state,
        listen: settings.listen,
        admin: settings.admin,
        dashboard: settings.dashboard.map(|address| match address {
            DashboardAddress::Off => "off".to_owned(),
            DashboardAddress::At(address) => address.to_string(),
        }),
        sidecars: SidecarDefaults {
            trust_domain: settings.trust_domain.to_string(),
            drain_deadline: settings.grace,
            workers: None,
            telemetry: telemetry.clone(),
        },
    };
    let log = if settings.quiet { LogMode::Keep } else { LogMode::Show };
    let mut workloads = documents::follow(dir)?;
    let mut mesh = tokio::select! {
        mesh = LocalMesh::start(parts, log) => mesh?,
        () = interrupts.next() => return Ok(()),
    };
    let served = tokio::select! {
        outcome = follow(&mut mesh, dir, settings, &mut workloads) => outcome,
        () = interrupts.next() => Ok(()),
    };
    stop(&mut mesh, &mut interrupts, settings.grace).await?;
    served
}

/// Keeps the sidecars as the documents say, and shows what becomes of them. Ends only with an error.
async fn follow(
    mesh: &mut LocalMesh,
    dir: &Path,
    settings: &Folder,
    workloads: &mut watch::Receiver<Workloads>,
) -> anyhow::Result<()> {
    let mut display = Display::default();
    let mut board = mesh.family.watch();
    let mut tokens = interval(TOKEN_RENEWAL);
    let wanted = workloads.borrow_and_update().clone();
    mesh.reconcile(&wanted, settings.grace).await?;
    ensure!(
        mesh.sidecars() > 0,
        "{} has no Workload with `mesh` whose address is one of this machine; see: pillion check {0}",
        dir.display()
    );
    loop {
        display.show(&board.borrow_and_update())?;
        tokio::select! {
            changed = board.changed() => changed?,
            _ = tokens.tick() => mesh.renew_tokens()?,
            changed = workloads.changed() => {
                changed.context("the folder is no longer watched")?;
                let wanted = workloads.borrow_and_update().clone();
                mesh.reconcile(&wanted, settings.grace).await?;
            }
        }
    }
}

async fn stop(mesh: &mut LocalMesh, interrupts: &mut Interrupts, grace: Duration) -> anyhow::Result<()> {
    display::say("stopping (again Ctrl-C: at once)")?;
    let stop_now = mesh.family.stop_now();
    // The sidecars drain for as long as they may, and a little longer until they are killed.
    let mut all = Box::pin(mesh.family.stop_all(CONTROL_PLANE, grace + Duration::from_secs(2)));
    tokio::select! {
        () = &mut all => {}
        () = interrupts.next() => {
            stop_now();
            all.await;
        }
    }
    Ok(display::say("stopped")?)
}

/// SIGINT and SIGTERM.
pub(crate) struct Interrupts {
    interrupted: Signal,
    terminated: Signal,
}

impl Interrupts {
    /// From now on both signals come here.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupted: signal(SignalKind::interrupt())?, terminated: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}
