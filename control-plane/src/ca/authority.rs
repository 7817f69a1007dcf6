//! Root and intermediate: loaded from the state folder, or made there on first
//! start. The root's key is needed only to make another intermediate; it may be
//! kept elsewhere.

use std::{io, path::Path, sync::Arc, time::Duration};

use pillion_wire::spiffe::TrustDomain;
use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    files,
    sign::{Signer, authority_params},
};

const ROOT_PEM: &str = "root.pem";
const ROOT_KEY: &str = "root.key";
const INTERMEDIATE_PEM: &str = "intermediate.pem";
const INTERMEDIATE_KEY: &str = "intermediate.key";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Lifetime of a root that is made here.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Lifetime of an intermediate that is made here.
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);
/// An authority that ends sooner than this is warned about.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The mesh's root and the intermediate that signs.
#[derive(Clone, Debug)]
pub struct Authority {
    signer: Arc<Signer>,
    root: Vec<CertificateDer<'static>>,
    intermediate: CertificateDer<'static>,
}

/// The authority cannot be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{file} in {dir}: {source}")]
    File {
        /// The file.
        file: &'static str,
        /// The state folder.
        dir: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file} is not usable: {reason}")]
    Content {
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file of a pair is missing.
    #[error("{0} is missing but files that belong to it are there: restore it, or remove them all to start a new mesh")]
    Missing(&'static str),
    /// Making a certificate failed.
    #[error("making {file}: {source}")]
    Making {
        /// The file.
        file: &'static str,
        /// What failed.
        source: rcgen::Error,
    },
}

impl Authority {
    /// The authority in `state_dir`; what is not there yet is made.
    ///
    /// # Errors
    ///
    /// When files cannot be read or written, do not belong together or have expired.
    pub fn load_or_make(state_dir: &Path, trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let store = Store { dir: state_dir };
        files::ensure_dir(state_dir).map_err(|source| store.error("the folder", source))?;
        if store.text(INTERMEDIATE_PEM, files::PUBLIC)?.is_none() {
            store.make(trust_domain)?;
        }
        store.load()
    }

    /// Signs workloads' certificates.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The certificates that peers are presented besides the leaf.
    #[must_use]
    pub const fn intermediate(&self) -> &CertificateDer<'static> {
        &self.intermediate
    }

    /// The trust anchors.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.root
    }
}

/// The state folder.
struct Store<'a> {
    dir: &'a Path,
}

impl Store<'_> {
    /// Makes an intermediate, and a root first where there is none.
    fn make(&self, trust_domain: &TrustDomain) -> Result<(), AuthorityError> {
        let has_root = self.text(ROOT_PEM, files::PUBLIC)?.is_some();
        let has_key = self.text(ROOT_KEY, files::SECRET)?.is_some();
        match (has_root, has_key) {
            (true, true) => {}
            (false, false) => self.make_root(trust_domain)?,
            (true, false) => return Err(AuthorityError::Missing(ROOT_KEY)),
            (false, true) => return Err(AuthorityError::Missing(ROOT_PEM)),
        }
        if self.text(INTERMEDIATE_KEY, files::SECRET)?.is_some() {
            return Err(AuthorityError::Missing(INTERMEDIATE_PEM));
        }
        let fail = |source| AuthorityError::Making { file: INTERMEDIATE_PEM, source };
        let issuer = Issuer::from_ca_cert_der(&self.certificate(ROOT_PEM)?, self.key(ROOT_KEY)?).map_err(fail)?;
        let key = KeyPair::generate().map_err(fail)?;
        let certificate = authority_params(
            &format!("Pillion intermediate of {trust_domain}"),
            INTERMEDIATE_LIFETIME,
            IsCa::Ca(BasicConstraints::Constrained(0)),
        )
        .signed_by(&key, &issuer)
        .map_err(fail)?;
        // The certificate last: without it the next start makes both again.
        self.write(INTERMEDIATE_KEY, files::SECRET, &key.serialize_pem())?;
        self.write(INTERMEDIATE_PEM, files::PUBLIC, &certificate.pem())?;
        info!(dir = %self.dir.display(), "made an intermediate certificate");
        Ok(())
    }

    fn make_root(&self, trust_domain: &TrustDomain) -> Result<(), AuthorityError> {
        let fail = |source| AuthorityError::Making { file: ROOT_PEM, source };
        // Its signature is verified in every handshake: P-384 there was a fifth of the server's time.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let certificate = authority_params(
            &format!("Pillion root of {trust_domain}"),
            ROOT_LIFETIME,
            IsCa::Ca(BasicConstraints::Constrained(1)),
        )
        .self_signed(&key)
        .map_err(fail)?;
        self.write(ROOT_KEY, files::SECRET, &key.serialize_pem())?;
        self.write(ROOT_PEM, files::PUBLIC, &certificate.pem())?;
        info!(dir = %self.dir.display(), %trust_domain, "made a root certificate");
        Ok(())
    }

    fn load(&self) -> Result<Authority, AuthorityError> {
        let root = self.certificates(ROOT_PEM)?;
        let intermediate = self.certificate(INTERMEDIATE_PEM)?;
        let key = self.key(INTERMEDIATE_KEY)?;
        let not_after = check_intermediate(&intermediate, &root, &key)?;
        let issuer = Issuer::from_ca_cert_der(&intermediate, key)
            .map_err(|error| AuthorityError::Content { file: INTERMEDIATE_PEM, reason: error.to_string() })?;
        Ok(Authority { signer: Arc::new(Signer::new(issuer, not_after)), root, intermediate })
    }

    fn certificate(&self, file: &'static str) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut all = self.certificates(file)?.into_iter();
        all.next().ok_or(AuthorityError::Missing(file))
    }

    fn certificates(&self, file: &'static str) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let text = self.text(file, files::PUBLIC)?.ok_or(AuthorityError::Missing(file))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => Err(AuthorityError::Content { file, reason: "no PEM block CERTIFICATE".to_owned() }),
        }
    }

    fn key(&self, file: &'static str) -> Result<KeyPair, AuthorityError> {
        let text = self.text(file, files::SECRET)?.ok_or(AuthorityError::Missing(file))?;
        KeyPair::from_pem(&text).map_err(|error| AuthorityError::Content { file, reason: error.to_string() })
    }

    fn text(&self, file: &'static str, mode: u32) -> Result<Option<String>, AuthorityError> {
        let content = files::read(&self.dir.join(file), mode).map_err(|source| self.error(file, source))?;
        content
            .map(|bytes| {
                String::from_utf8(bytes).map_err(|_| AuthorityError::Content { file, reason: "not text".to_owned() })
            })
            .transpose()
    }

    fn write(&self, file: &'static str, mode: u32, text: &str) -> Result<(), AuthorityError> {
        files::write(&self.dir.join(file), mode, text.as_bytes()).map_err(|source| self.error(file, source))
    }

    fn error(&self, file: &'static str, source: io::Error) -> AuthorityError {
        AuthorityError::File { file, dir: self.dir.display().to_string(), source }
    }
}

/// Until when the intermediate may sign: it must be an authority, belong to its
/// key, be signed by a root, and be valid now.
fn check_intermediate(
    der: &CertificateDer<'_>,
    roots: &[CertificateDer<'_>],
    key: &KeyPair,
) -> Result<OffsetDateTime, AuthorityError> {
    let bad = |reason: &str| AuthorityError::Content { file: INTERMEDIATE_PEM, reason: reason.to_owned() };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| bad("not an X.509 certificate"))?;
    if !certificate.is_ca() {
        return Err(bad("not the certificate of an authority"));
    }
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(bad("intermediate.key is not its key"));
    }
    let signed = roots.iter().any(|root| {
        X509Certificate::from_der(root)
            .is_ok_and(|(_, root)| certificate.verify_signature(Some(root.public_key())).is_ok())
    });
    if !signed {
        return Err(bad("not signed by the root in root.pem"));
    }
    let not_after = certificate.validity().not_after.to_datetime();
    let left = not_after - OffsetDateTime::now_utc();
    if left.is_negative() || !certificate.validity().is_valid() {
        return Err(bad("expired or not valid yet"));
    }
    if left < SOON {
        let days = left.whole_seconds().unsigned_abs() / DAY.as_secs();
        warn!(days, "the intermediate certificate ends soon: make a new one with `pillion certs`");
    }
    Ok(not_after)
}
