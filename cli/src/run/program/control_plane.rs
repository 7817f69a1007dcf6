//! The control plane that all programs of one home share: a child of whichever of them holds a lock. When that one ends
//! another one takes the lock, and starts it on the same address with the same keys; sidecars ride over the gap.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::oneshot,
    time::{Instant, interval, sleep},
};

use super::{home::Home, register};
use crate::{
    certs::files::replace,
    child::{Family, LogMode, Powers, Spec},
    client,
};

/// How long a control plane may take to start, or another program to take it over.
const DEADLINE: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// How often whoever runs the control plane looks for programs that are gone without a word.
const SWEEP: Duration = Duration::from_secs(1);
/// How long it may take to stop.
const GRACE: Duration = Duration::from_secs(2);
const XDS_PORT: u16 = 15010;
const ADMIN_PORT: u16 = 15014;

/// Where the control plane of a home is. The same for as long as the home exists.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Addresses {
    /// xDS and the CA.
    pub(super) listen: SocketAddr,
    /// Its admin pages.
    pub(super) admin: SocketAddr,
}

impl Addresses {
    fn file(home: &Home) -> PathBuf {
        home.state().join("addresses.json")
    }

    fn read(home: &Home) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(Self::file(home)).ok()?).ok()
    }

    /// Those of the file, or new ones. Only for whoever holds the lock.
    fn settle(home: &Home) -> anyhow::Result<Self> {
        if let Some(known) = Self::read(home) {
            return Ok(known);
        }
        let ip = register::free_address(XDS_PORT)?.into();
        let new = Self { listen: SocketAddr::new(ip, XDS_PORT), admin: SocketAddr::new(ip, ADMIN_PORT) };
        replace(&Self::file(home), &serde_json::to_string(&new)?, 0o600)?;
        Ok(new)
    }
}

/// Our part in running the control plane.
pub(super) struct ControlPlane {
    home: Home,
    family: Family,
    lock: Option<File>,
}

impl ControlPlane {
    /// No part yet.
    pub(super) fn new(home: &Home, log: LogMode) -> anyhow::Result<Self> {
        let family = Family::new(log).context("cannot find our own executable")?;
        Ok(Self { home: home.clone(), family, lock: None })
    }

    /// Runs the control plane as soon as nobody else does. Ends only when that cannot be.
    ///
    /// # Cancel safety
    /// What runs goes on running; [`Self::stop`] ends it.
    pub(super) async fn run(&mut self) -> anyhow::Error {
        if let Err(error) = self.take_over().await {
            return error.context("cannot run the control plane");
        }
        let mut sweeps = interval(SWEEP);
        loop {
            sweeps.tick().await;
            // Tried again: somebody may have removed the folder, or filled the disk.
            let _next_time = register::sweep(&self.home);
        }
    }

    async fn take_over(&mut self) -> anyhow::Result<()> {
        self.lock = Some(take(self.home.control_plane_lock()?).await?);
        let addresses = Addresses::settle(&self.home)?;
        let mut arguments = vec!["control-plane".into(), "--config".into(), self.home.documents().into()];
        arguments.extend(["--state".into(), self.home.state().into()]);
        arguments.extend(["--listen".into(), addresses.listen.to_string().into()]);
        arguments.extend(["--admin".into(), addresses.admin.to_string().into()]);
        let name = "control-plane".to_owned();
        self.family.start(Spec { name, arguments, restart: true, powers: Powers::default() });
        Ok(())
    }

    /// Ends the control plane if it is ours, and lets another program run it.
    pub(super) async fn stop(mut self) {
        self.family.stop_all("", GRACE).await;
        drop(self.lock.take());
    }
}

/// Takes the lock, however long that needs: at once when it is free.
async fn take(file: File) -> anyhow::Result<File> {
    if file.try_lock().is_ok() {
        return Ok(file);
    }
    let (taken, outcome) = oneshot::channel();
    thread::Builder::new().name("control-plane-lock".to_owned()).spawn(move || {
        let locked = file.lock().map(|()| file);
        // Nobody waits any more: the lock is free again as soon as the file is dropped.
        let _unwanted = taken.send(locked);
    })?;
    outcome.await.context("the thread ended")?.context("cannot take the control plane's lock")
}

/// Waits until the home's control plane serves, whoever runs it.
pub(super) async fn serving(home: &Home) -> anyhow::Result<Addresses> {
    let deadline = Instant::now() + DEADLINE;
    let mut last = anyhow!("no program has started one");
    while Instant::now() < deadline {
        if let Some(addresses) = Addresses::read(home) {
            match client::get(addresses.admin, "/healthz", BETWEEN_LOOKS * 50).await {
                Ok(reply) if reply.is_success() => return Ok(addresses),
                Ok(reply) => last = anyhow!("{} says {}", addresses.admin, reply.status),
                Err(error) => last = error.into(),
            }
        }
        sleep(BETWEEN_LOOKS).await;
    }
    Err(last.context(format!("the control plane of {} does not serve", home.path().display())))
}
