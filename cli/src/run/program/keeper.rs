//! The keeper: a process beside ours that cleans up when we cannot, since somebody killed us.
//!
//! It reads from a pipe that only we can write to. When that ends without the word that all is well, we are gone: the
//! kernel has killed our children (see `child::lifeline`), and the keeper ends what the program started and takes the
//! program out of the mesh.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use nix::{sys::signal::SigSet, unistd::setsid};
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::{
    home::Home,
    processes::{self, NamespaceId},
    register,
};
use crate::child::{Capabilities, Powers};

/// Said when there is nothing left to do.
const DONE: &[u8] = b"done";

/// Settings of `pillion keeper`.
#[derive(Debug, Args)]
pub(crate) struct KeeperSettings {
    /// The mesh's folder.
    #[arg(long)]
    home: PathBuf,
    /// The program's network namespace.
    #[arg(long)]
    network: PathBuf,
}

/// Our keeper. Dropping it lets it do its work.
#[derive(Debug)]
pub(super) struct Keeper(Child);

impl Keeper {
    /// Starts it.
    pub(super) fn start(home: &Home, network: &Arc<OwnedFd>) -> anyhow::Result<Self> {
        // The same user's processes may be looked into unless they said no; these need the first, all need the second
        // where the user is root in name only.
        let capabilities = Capabilities::SYS_PTRACE | Capabilities::KILL;
        let _lent = Powers { capabilities, files: vec![Arc::clone(network)] }.lend()?;
        let executable = std::env::current_exe().context("cannot find our own executable")?;
        let mut command = Command::new(executable);
        command.arg("keeper").arg("--home").arg(home.path());
        command.arg("--network").arg(format!("/proc/self/fd/{}", network.as_raw_fd()));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("cannot start the process that cleans up after us")?))
    }

    /// Tells it that there is nothing left to do, and waits until it is gone.
    pub(super) fn dismiss(mut self) -> io::Result<()> {
        if let Some(mut pipe) = self.0.stdin.take() {
            // When it is gone already it hears nothing, and does nothing either.
            let _gone = pipe.write_all(DONE);
        }
        self.0.wait().map(drop)
    }
}

/// The keeper itself.
pub(crate) fn keep(settings: &KeeperSettings) -> ExitCode {
    match watch(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(&error),
    }
}

fn watch(settings: &KeeperSettings) -> anyhow::Result<()> {
    // Out of reach of whatever ends the terminal's processes; of signals sent to all of its group as well.
    setsid().context("cannot leave the session")?;
    SigSet::empty().thread_set_mask().context("cannot unblock signals")?;
    let network: OwnedFd = File::open(&settings.network).context("cannot open the network namespace")?.into();
    let namespace = NamespaceId::of(&network)?;
    let mut said = Vec::new();
    // A pipe that breaks has ended too.
    let _ended = io::stdin().read_to_end(&mut said);
    if said == DONE {
        return Ok(());
    }
    processes::end(namespace, Duration::ZERO);
    register::sweep(&Home::open(Some(&settings.home))?)
}
