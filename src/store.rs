//! Files that outlive us: what is found again by a restart while the control plane is away.
//!
//! Each value is a file of its own, begins with the SHA-256 of the rest, and is replaced whole (written beside, then
//! renamed): whoever is killed while writing, or loses power, finds the value before or none, never half of one.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// Larger values are not ours.
const MOST_BYTES: u64 = 64 << 20;
/// What a file that is being written ends with.
const UNFINISHED: &str = ".new";

/// A folder of values, of one sidecar only.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    in_use: AtomicBool,
}

impl Store {
    /// Opens the folder of a workload below `root`; makes it, for our user only (0700), when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or others than its owner may write to it, or the names are none of folders.
    pub fn open(root: &Path, namespace: &str, workload: &str) -> io::Result<Self> {
        if [namespace, workload].iter().any(|name| name.contains('/') || matches!(*name, "" | "." | "..")) {
            let problem = format!("`{namespace}` or `{workload}` cannot be the name of a folder");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let folder = root.join(namespace).join(workload);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        if fs::metadata(&folder)?.mode() & 0o022 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it: chmod 700"));
        }
        Ok(Self { folder, in_use: AtomicBool::new(false) })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says whether we live on what was found here, since the control plane has not been reached.
    pub fn set_in_use(&self, in_use: bool) {
        self.in_use.store(in_use, Ordering::Relaxed);
    }

    /// Whether we live on what was found here.
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The value called `name`. Blocks.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written. `None`: there is none.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        if length > MOST_BYTES {
            return Err(damaged());
        }
        let mut bytes = fs::read(&path)?;
        let value = bytes.split_off(SHA256_OUTPUT_LEN.min(bytes.len()));
        if digest(&SHA256, &value).as_ref() == bytes { Ok(Some(value)) } else { Err(damaged()) }
    }

    /// Keeps `value` as `name`, readable by our user only (0600). Blocks.
    ///
    /// # Errors
    /// When it cannot be written; the value before is still there then.
    pub fn write(&self, name: &str, value: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join(format!("{name}{UNFINISHED}"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        // It may have been there with other permissions.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(digest(&SHA256, value).as_ref())?;
        file.write_all(value)?;
        fs::rename(unfinished, self.folder.join(name))
    }

    /// Forgets `name`. Blocks.
    ///
    /// # Errors
    /// When it is there and stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The names of all values. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| !name.ends_with(UNFINISHED)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), "shop", "orders-1").unwrap();
        (root, store)
    }

    #[test]
    fn a_value_is_found_again_and_is_for_our_user_only() {
        let (root, store) = opened();
        assert_eq!(store.read("a").unwrap(), None);
        store.write("a", b"first").unwrap();
        store.write("a", b"second").unwrap();
        store.write("b", b"").unwrap();
        let again = Store::open(root.path(), "shop", "orders-1").unwrap();
        assert_eq!(again.read("a").unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(again.read("b").unwrap().as_deref(), Some(&b""[..]));
        let mut names = again.names().unwrap();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(fs::metadata(store.folder().join("a")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(store.folder()).unwrap().mode() & 0o777, 0o700);
        store.remove("a").unwrap();
        store.remove("a").unwrap();
        assert_eq!(again.read("a").unwrap(), None);
    }

    #[test]
    fn what_was_cut_short_or_altered_is_no_value() {
        let (_root, store) = opened();
        store.write("a", b"some value").unwrap();
        let whole = fs::read(store.folder().join("a")).unwrap();
        for length in 0..whole.len() {
            fs::write(store.folder().join("a"), &whole[..length]).unwrap();
            assert_eq!(store.read("a").unwrap_err().kind(), io::ErrorKind::InvalidData, "{length} bytes");
        }
        let mut altered = whole.clone();
        *altered.last_mut().unwrap() ^= 1;
        fs::write(store.folder().join("a"), altered).unwrap();
        assert!(store.read("a").is_err());
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used() {
        let (root, store) = opened();
        fs::set_permissions(store.folder(), Permissions::from_mode(0o777)).unwrap();
        let refused = Store::open(root.path(), "shop", "orders-1").unwrap_err();
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
    }
}
