//! What a child may do beyond other processes: capabilities over namespaces that are ours, and files that it finds open.
//!
//! Both pass through `exec` only where that is asked for: as ambient capabilities, and without close-on-exec. They are
//! lent for the moment in which the child is started, so that no other child gets them.

use std::{io, os::fd::OwnedFd, sync::Arc};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    unistd::geteuid,
};
pub(crate) use rustix::thread::CapabilitySet as Capabilities;
use rustix::thread::{
    CapabilitySets, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set, set_capabilities,
};

/// What a child gets.
#[derive(Debug, Clone)]
pub(crate) struct Powers {
    /// Capabilities; of those that this process has itself.
    pub(crate) capabilities: Capabilities,
    /// Open files, which have the same numbers in the child.
    pub(crate) files: Vec<Arc<OwnedFd>>,
}

impl Default for Powers {
    fn default() -> Self {
        Self { capabilities: Capabilities::empty(), files: Vec::new() }
    }
}

impl Powers {
    /// Capabilities alone.
    pub(crate) const fn of(capabilities: Capabilities) -> Self {
        Self { capabilities, files: Vec::new() }
    }

    /// Lets children that this thread starts have these powers until the guard is dropped.
    pub(crate) fn lend(&self) -> io::Result<Lent> {
        let mut lent = Lent { capabilities: None, files: self.files.clone() };
        // Root's children have all capabilities that root has.
        if !self.capabilities.is_empty() && !geteuid().is_root() {
            let own = capabilities(None)?;
            lent.capabilities = Some(own);
            let passed = self.capabilities & own.permitted;
            set_capabilities(None, CapabilitySets { inheritable: own.inheritable | passed, ..own })?;
            for one in passed.iter() {
                configure_capability_in_ambient_set(one, true)?;
            }
        }
        for file in &self.files {
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(lent)
    }
}

/// Takes the powers back when it is dropped.
#[derive(Debug)]
#[must_use = "the powers are taken back at once"]
pub(crate) struct Lent {
    capabilities: Option<CapabilitySets>,
    files: Vec<Arc<OwnedFd>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Neither can fail: less is always allowed, and the files are open.
        if let Some(before) = self.capabilities {
            let _cleared = clear_ambient_capability_set();
            let _restored = set_capabilities(None, before);
        }
        for file in &self.files {
            let _closes = fcntl(file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    }
}
