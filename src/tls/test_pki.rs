//! Certificates for tests, made at run time: a root, an intermediate and whatever leaves a test wants.

#![allow(clippy::expect_used, reason = "test support")]

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// A root with one intermediate.
pub(crate) struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Fresh keys each time.
    pub(crate) fn new() -> Self {
        let root = CertifiedIssuer::self_signed(ca_params("root"), key()).expect("root");
        let intermediate = CertifiedIssuer::signed_by(ca_params("intermediate"), key(), &root).expect("intermediate");
        Self { root, intermediate }
    }

    /// A leaf and its new key, as DER and PKCS#8.
    pub(crate) fn sign(&self, params: &CertificateParams) -> (CertificateDer<'static>, KeyPair) {
        let key = key();
        let leaf = params.signed_by(&key, &self.intermediate).expect("leaf");
        (leaf.der().clone(), key)
    }

    /// A leaf for a key that somebody else holds.
    pub(crate) fn sign_key(&self, params: &CertificateParams, key: &impl rcgen::PublicKeyData) -> String {
        params.signed_by(key, &self.intermediate).expect("leaf").pem()
    }

    /// What a server sends along.
    pub(crate) fn intermediates(&self) -> Vec<CertificateDer<'static>> {
        vec![self.intermediate.der().clone()]
    }

    /// The intermediate and the root, as a CA answers.
    pub(crate) fn chain_pem(&self) -> Vec<String> {
        vec![self.intermediate.pem(), self.root.pem()]
    }

    /// The root, as PEM.
    pub(crate) fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// What peers trust.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).expect("root");
        Arc::new(roots)
    }
}

/// A workload certificate of one day with these URIs.
pub(crate) fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|text| uri(text)).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = OffsetDateTime::now_utc() - Duration::minutes(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    params
}

/// A URI as a subject alternative name.
pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ascii"))
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(30);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("key")
}
