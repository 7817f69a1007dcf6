//! Certificates of the mesh: everything in them is ours but the public key.

use std::{net::IpAddr, time::Duration};

use pillion_wire::spiffe::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

/// How far back certificates are valid, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// Signs workloads' certificates.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Signer").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Names beside the identity: only in the control plane's own certificate.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A name cannot be put into a certificate.
    #[error("a name cannot stand in a certificate: {0}")]
    Name(rcgen::Error),
    /// The signing itself failed.
    #[error("signing: {0}")]
    Signing(rcgen::Error),
    /// The intermediate certificate has run out.
    #[error("the intermediate certificate expired at {0}: make a new one with `pillion certs`")]
    Expired(OffsetDateTime),
}

impl Signer {
    /// Signs with this intermediate, which is valid until `not_after`.
    pub(super) const fn new(issuer: Issuer<'static, KeyPair>, not_after: OffsetDateTime) -> Self {
        Self { issuer, not_after }
    }

    /// A certificate for `identity` with the public key of somebody else.
    ///
    /// # Errors
    ///
    /// When the intermediate has expired, or signing fails.
    pub fn sign(
        &self,
        identity: &SpiffeId,
        key: &impl PublicKeyData,
        lifetime: Duration,
        names: &ServerNames,
    ) -> Result<CertificateDer<'static>, SignError> {
        let now = OffsetDateTime::now_utc();
        if now >= self.not_after {
            return Err(SignError::Expired(self.not_after));
        }
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = (now + lifetime).min(self.not_after);
        params.serial_number = Some(random_serial());
        // No subject: the identity is the URI (SPIFFE X.509-SVID, section 4).
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = alternative_names(identity, names)?;
        let certificate = params.signed_by(key, &self.issuer).map_err(SignError::Signing)?;
        Ok(certificate.der().clone())
    }
}

fn alternative_names(identity: &SpiffeId, names: &ServerNames) -> Result<Vec<SanType>, SignError> {
    let uri = identity.to_string().try_into().map_err(SignError::Name)?;
    let mut found = vec![SanType::URI(uri)];
    for name in &names.dns {
        let name = name.clone().try_into().map_err(SignError::Name)?;
        found.push(SanType::DnsName(name));
    }
    found.extend(names.addresses.iter().copied().map(SanType::IpAddress));
    Ok(found)
}

/// Parameters of an authority's certificate.
pub(super) fn authority_params(common_name: &str, lifetime: Duration, is_ca: IsCa) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = now + lifetime;
    params.serial_number = Some(random_serial());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "Pillion");
    params.is_ca = is_ca;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// 128 random bits. The first is 0 and the second 1, so that the number is
/// positive and of full length (RFC 5280 section 4.1.2.2).
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}
