//! A mesh on this machine: one control plane, and a sidecar for each local Workload of a folder, as child processes.

use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use pillion_control_plane::ca::join_token;

use super::plan::{SidecarDefaults, SidecarPlan};
use crate::{
    certs::files::replace,
    child::{Board, Family, LogMode, Powers, Spec},
    documents::Workloads,
    locate::Announcement,
};

/// The control plane's process.
pub(crate) const CONTROL_PLANE: &str = "control-plane";
/// How long a join token may be used. Tokens are made anew at half of it, so that a sidecar can always be started again.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// When tokens are made anew.
pub(crate) const TOKEN_RENEWAL: Duration = Duration::from_secs(1800);
const CONTROL_PLANE_DEADLINE: Duration = Duration::from_secs(20);

/// What a local mesh is made of.
#[derive(Debug, Clone)]
pub(crate) struct MeshSettings {
    /// The folder of documents.
    pub(crate) config: PathBuf,
    /// The control plane's state; the sidecars' bootstrap files are below it. It must be readable by its owner alone.
    pub(crate) state: PathBuf,
    /// Where xDS and the CA are served.
    pub(crate) listen: SocketAddr,
    /// The control plane's admin pages.
    pub(crate) admin: SocketAddr,
    /// The dashboard: an address or `off`; the control plane's own default when `None`.
    pub(crate) dashboard: Option<String>,
    /// What all sidecars have in common.
    pub(crate) sidecars: SidecarDefaults,
}

/// A running mesh.
pub(crate) struct LocalMesh {
    /// The processes.
    pub(crate) family: Family,
    settings: MeshSettings,
    control_plane: SocketAddr,
    sidecars: BTreeMap<String, SidecarPlan>,
    /// For `pillion ps` and `pillion tap`.
    _announced: Option<Announcement>,
}

impl LocalMesh {
    /// Starts the control plane and waits until it serves.
    pub(crate) async fn start(settings: MeshSettings, log: LogMode) -> anyhow::Result<Self> {
        let mut family = Family::new(log).context("cannot find our own executable")?;
        let (config, state) = (settings.config.clone(), settings.state.clone());
        let (listen, admin) = (settings.listen.to_string(), settings.admin.to_string());
        let mut arguments: Vec<OsString> = vec!["control-plane".into(), "--config".into(), config.into()];
        arguments.extend(["--state".into(), state.into(), "--listen".into(), listen.into()]);
        arguments.extend(["--admin".into(), admin.into()]);
        if let Some(dashboard) = &settings.dashboard {
            arguments.extend(["--dashboard".into(), dashboard.into()]);
        }
        arguments.extend(["--trust-domain".into(), settings.sidecars.trust_domain.clone().into()]);
        arguments.extend(settings.sidecars.telemetry.arguments().into_iter().map(OsString::from));
        family.start(Spec { name: CONTROL_PLANE.to_owned(), arguments, restart: true, powers: Powers::default() });
        let serving = family.ready(CONTROL_PLANE_DEADLINE).await;
        let address = family.status(CONTROL_PLANE).and_then(|status| status.address("listen"));
        match (serving, address) {
            (Ok(()), Some(control_plane)) => {
                let admin = family.status(CONTROL_PLANE).and_then(|status| status.address("admin"));
                let announced = admin.and_then(Announcement::make);
                let sidecars = BTreeMap::new();
                Ok(Self { family, settings, control_plane, sidecars, _announced: announced })
            }
            (outcome, _) => {
                let log = family.log_of(CONTROL_PLANE).join("\n");
                let error = outcome.err().map_or_else(|| anyhow!("its ready line names no address"), Into::into);
                family.stop_all("", Duration::from_secs(1)).await;
                Err(error.context(format!("the control plane did not start; its log:\n{log}")))
            }
        }
    }

    /// Makes the sidecars those that the documents ask for: starts, restarts and stops what differs.
    ///
    /// # Cancel safety
    /// Call it again to finish.
    pub(crate) async fn reconcile(&mut self, workloads: &Workloads, grace: Duration) -> anyhow::Result<()> {
        let plans = workloads.iter().filter_map(|workload| SidecarPlan::of(workload));
        let wanted: BTreeMap<String, SidecarPlan> = plans.map(|plan| (plan.name.clone(), plan)).collect();
        let outdated = |(name, plan): (&String, &SidecarPlan)| (wanted.get(name) != Some(plan)).then(|| name.clone());
        let outdated: Vec<String> = self.sidecars.iter().filter_map(outdated).collect();
        self.sidecars.retain(|name, _| !outdated.contains(name));
        if !outdated.is_empty() {
            self.family.stop(&outdated, grace).await;
        }
        for (name, plan) in wanted {
            if !self.sidecars.contains_key(&name) {
                self.start_sidecar(&plan)?;
                self.sidecars.insert(name, plan);
            }
        }
        Ok(())
    }

    /// Makes the join tokens of all sidecars anew.
    pub(crate) fn renew_tokens(&self) -> anyhow::Result<()> {
        self.sidecars.values().try_for_each(|plan| self.write_token(plan).map(drop))
    }

    /// Where the dashboard is, with its token, unless it is off.
    pub(crate) fn dashboard(&self) -> Option<String> {
        let status = self.family.status(CONTROL_PLANE)?;
        Some(status.ready.get("dashboard")?.as_str()?.to_owned())
    }

    /// How many sidecars there are.
    pub(crate) fn sidecars(&self) -> usize {
        self.sidecars.len()
    }

    /// What is known of all processes.
    pub(crate) fn board(&self) -> Board {
        self.family.watch().borrow().clone()
    }

    fn start_sidecar(&mut self, plan: &SidecarPlan) -> anyhow::Result<()> {
        let token = self.write_token(plan)?;
        let root = self.settings.state.join("root.pem");
        let bootstrap = plan.bootstrap(&self.settings.sidecars, self.control_plane, &root, &token);
        let file = token.with_extension("json");
        replace(&file, &format!("{bootstrap:#}\n"), 0o600)?;
        let arguments = vec!["proxy".into(), "--bootstrap".into(), file.into()];
        self.family.start(Spec { name: plan.name.clone(), arguments, restart: true, powers: Powers::default() });
        Ok(())
    }

    fn write_token(&self, plan: &SidecarPlan) -> anyhow::Result<PathBuf> {
        let folder = self.settings.state.join("sidecars");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let token = join_token::mint(&self.settings.state, &plan.namespace, &plan.service_account, TOKEN_LIFETIME)
            .with_context(|| format!("no join token for {}", plan.name))?;
        let file = folder.join(format!("{}.token", plan.file_name()));
        replace(&file, &token, 0o600)?;
        Ok(file)
    }
}
