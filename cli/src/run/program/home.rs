//! The folder that all programs of one mesh share: their records, the documents made of them, and the mesh's keys.
//!
//! ```text
//! documents/      what the control plane reads; routes and the like are the user's to add
//!   run/          the Workloads and Services of running programs: ours, written again whenever they change
//! runs/           a record of each running program, which holds a lock on it for as long as it lives
//! state/          the control plane's keys; below it the sidecars' settings and tokens
//! logs/           what sidecars and control plane said
//! lock            held while records and documents are changed
//! control-plane.lock   held by the one program that runs the control plane
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use nix::unistd::geteuid;

use crate::certs::files::private_folder;

/// The folder, which is there and ours alone.
#[derive(Debug, Clone)]
pub(super) struct Home(PathBuf);

impl Home {
    /// Opens the folder, and makes what is missing of it.
    ///
    /// # Errors
    /// When it is not ours alone: whoever may write there could give our workloads' identities to others.
    pub(super) fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let path = given.map_or_else(default_path, Path::to_owned);
        private_folder(&path)?;
        // In /tmp anybody may have put a link there; a folder that was named may well be one.
        let is_link = given.is_none() && path.is_symlink();
        ensure!(!is_link, "{} is a link; name a folder of your own with --home", path.display());
        let path = path.canonicalize().with_context(|| format!("cannot enter {}", path.display()))?;
        let is = fs::symlink_metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        ensure!(is.is_dir(), "{} is not a folder", path.display());
        ensure!(
            is.uid() == geteuid().as_raw(),
            "{} belongs to another user; name a folder of your own with --home",
            path.display()
        );
        ensure!(
            is.mode() & 0o077 == 0,
            "{0} is open to other users, who could take our programs' identities; run: chmod 700 {0}",
            path.display()
        );
        let home = Self(path);
        for folder in [home.own_documents(), home.runs(), home.state().join("sidecars"), home.logs()] {
            private_folder(&folder)?;
        }
        Ok(home)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What the control plane reads.
    pub(super) fn documents(&self) -> PathBuf {
        self.0.join("documents")
    }

    /// The part of the documents that we write.
    pub(super) fn own_documents(&self) -> PathBuf {
        self.documents().join("run")
    }

    /// Records of running programs.
    pub(super) fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    /// The control plane's state.
    pub(super) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Waits until nobody else changes anything here, and keeps others from it until the file is dropped.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let file = lock_file(&self.0.join("lock"))?;
        file.lock().with_context(|| format!("cannot lock {}/lock", self.0.display()))?;
        Ok(file)
    }

    /// The lock of whoever runs the control plane; not taken yet.
    pub(super) fn control_plane_lock(&self) -> anyhow::Result<File> {
        lock_file(&self.0.join("control-plane.lock"))
    }
}

/// Opens a file to lock it; children do not inherit it.
pub(super) fn lock_file(path: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// Removes a file, which may be gone already.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where the folder is when nobody names one.
pub(crate) fn default_path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => Path::new(&folder).join("pillion"),
        _ => PathBuf::from(format!("/tmp/pillion-{}", geteuid())),
    }
}
