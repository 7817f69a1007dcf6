//! Where sidecar and control plane write what they have to say, when nobody looks.

use std::{
    fs::{self, File},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::{home::Home, register::Record};
use crate::child::LogMode;

/// A longer file is put aside, in place of the one before.
const LONGEST_BYTES: u64 = 4 << 20;
/// What is shown of it.
const LINES: usize = 20;

/// The log of all programs of one name.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Arc<File>,
}

impl Log {
    /// Opens it, to add to it.
    pub(super) fn open(home: &Home, record: &Record) -> anyhow::Result<Self> {
        let path = home.logs().join(format!("{}.{}.log", record.namespace, record.name));
        if fs::metadata(&path).is_ok_and(|is| is.len() > LONGEST_BYTES) {
            fs::rename(&path, path.with_extension("log.old"))
                .with_context(|| format!("cannot rename {}", path.display()))?;
        }
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file: Arc::new(file) })
    }

    /// For children who write to it.
    pub(super) fn mode(&self) -> LogMode {
        LogMode::Save(Arc::clone(&self.file))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its last lines.
    pub(super) fn tail(&self) -> String {
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
    }
}
