//! Ties a child's life to its parent's: when the parent dies, however it dies, the kernel kills the child.
//!
//! The child asks for it itself, as its first act. Its parent may have died before that, so it looks afterwards.

use std::process::Command;

use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal},
    },
    unistd::{Pid, getpid, getppid},
};

/// Names the parent in the child's environment.
pub(crate) const PARENT: &str = "PILLION_PARENT_PID";

/// Makes the child hold on to this process.
pub(crate) fn tie(command: &mut Command) {
    command.env(PARENT, getpid().to_string());
}

/// What a child does first. Does nothing in a process that was not started with [`tie`].
///
/// # Errors
/// When the parent is gone already, or the kernel refuses.
pub(crate) fn hold() -> Result<(), LifelineError> {
    let Some(parent) = std::env::var_os(PARENT) else { return Ok(()) };
    let parent = parent.to_str().and_then(|text| text.parse().ok()).map(Pid::from_raw);
    set_pdeathsig(Signal::SIGKILL).map_err(LifelineError::Refused)?;
    // A parent that reads signals itself has blocked them, and children inherit that.
    SigSet::empty().thread_set_mask().map_err(LifelineError::Blocked)?;
    if Some(getppid()) == parent { Ok(()) } else { Err(LifelineError::Orphan) }
}

/// Why a child ends before it begins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifelineError {
    /// Nobody would stop it.
    #[error("the process that started this one is gone")]
    Orphan,
    /// prctl failed.
    #[error("cannot tie this process to its parent (PR_SET_PDEATHSIG): {0}")]
    Refused(nix::Error),
    /// sigprocmask failed.
    #[error("cannot unblock signals: {0}")]
    Blocked(nix::Error),
}
