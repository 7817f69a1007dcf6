//! Key and certificate files: keys are readable by their owner alone from the first byte on, and nothing that exists is
//! overwritten unless that was asked for.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rcgen::{Issuer, KeyPair};

use super::issue::Issued;

/// A folder of certificates and keys.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    overwrite: bool,
}

impl Folder {
    /// Makes the folder if there is none, with access for its owner alone.
    pub(super) fn open(path: &Path, overwrite: bool) -> Result<Self, FileError> {
        private_folder(path)?;
        Ok(Self { path: path.to_owned(), overwrite })
    }

    /// A folder that is only read.
    pub(super) fn existing(path: &Path) -> Self {
        Self { path: path.to_owned(), overwrite: false }
    }

    /// Writes `NAME.key` and `NAME.pem`: the certificate and, below it, those that vouch for it up to the root.
    pub(super) fn save(&self, name: &str, issued: &Issued, chain: &str) -> Result<(), FileError> {
        let (key, certificate) = (self.file(name, "key"), self.file(name, "pem"));
        if !self.overwrite
            && let Some(path) = [&key, &certificate].into_iter().find(|path| path.exists())
        {
            return Err(FileError::Exists(path.clone()));
        }
        replace(&key, &issued.key, 0o600)?;
        replace(&certificate, &format!("{}{chain}", issued.certificate), 0o644)
    }

    /// Writes a certificate that is public and not ours to make: the root beside a workload's certificate.
    pub(super) fn save_public(&self, name: &str, text: &str) -> Result<(), FileError> {
        replace(&self.file(name, "pem"), text, 0o644)
    }

    /// The authority that `NAME.pem` and `NAME.key` are, and its certificate in PEM.
    pub(super) fn authority(&self, name: &str) -> Result<(Issuer<'static, KeyPair>, String), FileError> {
        let certificate = self.read(&self.file(name, "pem"))?;
        let key_file = self.file(name, "key");
        let key = KeyPair::from_pem(&self.read(&key_file)?);
        let key = key.map_err(|error| FileError::NotPem(key_file, error))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key);
        let issuer = issuer.map_err(|error| FileError::NotPem(self.file(name, "pem"), error))?;
        Ok((issuer, certificate))
    }

    /// The text of `NAME.pem`.
    pub(super) fn certificate(&self, name: &str) -> Result<String, FileError> {
        self.read(&self.file(name, "pem"))
    }

    /// The path of `NAME.EXTENSION`.
    pub(super) fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.path.join(format!("{name}.{extension}"))
    }

    fn read(&self, path: &Path) -> Result<String, FileError> {
        fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FileError::Missing(path.to_owned(), self.path.clone()),
            _ => FileError::Read(path.to_owned(), error),
        })
    }
}

/// Makes a folder that only its owner may enter, if there is none.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| FileError::Write(path.to_owned(), error))
}

/// Writes beside and renames, so that a reader sees the old file or the new one whole.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let beside = path.with_extension("new");
    let failed = |error| FileError::Write(path.to_owned(), error);
    // A leftover of an interrupted run could have another mode.
    if beside.exists() {
        fs::remove_file(&beside).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// Keys are not overwritten.
    #[error("{} exists already; to make a new one in its place, add --force", .0.display())]
    Exists(PathBuf),
    /// No authority yet.
    #[error(
        "{} does not exist; make it first: pillion certs root --out {folder}, then pillion certs intermediate --out {folder}",
        .0.display(), folder = .1.display()
    )]
    Missing(PathBuf, PathBuf),
    /// Not readable.
    #[error("cannot read {}: {error}", .0.display(), error = .1)]
    Read(PathBuf, io::Error),
    /// Not writable.
    #[error("cannot write {}: {error}", .0.display(), error = .1)]
    Write(PathBuf, io::Error),
    /// Not what it should be.
    #[error("{} does not hold what its name says, in PEM: {error}", .0.display(), error = .1)]
    NotPem(PathBuf, rcgen::Error),
}
