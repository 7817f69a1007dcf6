//! The state folder: secrets only their owner can read, written whole or not at all.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use tracing::warn;

/// Permissions of secrets.
pub(super) const SECRET: u32 = 0o600;
/// Permissions of what anyone may read.
pub(super) const PUBLIC: u32 = 0o644;

/// Makes the folder, for its owner only.
pub(super) fn ensure_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The content of `path`, or `None` when there is no such file. A secret that
/// others can read is said to be so, and closed to them.
pub(super) fn read(path: &Path, mode: u32) -> io::Result<Option<Vec<u8>>> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if mode == SECRET {
        let open = fs::metadata(path)?.permissions().mode() & 0o077 != 0;
        if open {
            warn!(path = %path.display(), "a secret that others could read, now closed to them");
            fs::set_permissions(path, fs::Permissions::from_mode(SECRET))?;
        }
    }
    Ok(Some(content))
}

/// Writes `content` beside `path` and moves it there.
pub(super) fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    // Left by a process of the same number that died while writing.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)
}
