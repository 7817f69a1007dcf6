//! Certificates of the mesh's PKI: what each kind may do, and for how long.
//!
//! ECDSA P-256 throughout. Every certificate gets its own validity and a random serial number: the library's defaults
//! are valid for two millennia and number a certificate after its key.

use std::{net::IpAddr, time::Duration};

use pillion_wire::spiffe::SpiffeId;
use rand::RngCore as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

/// Clocks differ: a certificate is valid a little before it is made.
const BACKDATED: Duration = Duration::from_secs(60);

/// A certificate in PEM and its private key in PEM.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Makes a self-signed root.
pub(super) fn root(trust_domain: &str, lifetime: Duration) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    let parameters = authority(&format!("{trust_domain} root"), BasicConstraints::Constrained(1), lifetime);
    let certificate = parameters.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes an intermediate, which signs workloads and nothing else.
pub(super) fn intermediate(
    ca: &Issuer<'_, KeyPair>,
    trust_domain: &str,
    lifetime: Duration,
) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    let name = format!("{trust_domain} intermediate");
    let certificate = authority(&name, BasicConstraints::Constrained(0), lifetime).signed_by(&key, ca)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes a workload's certificate: its SPIFFE id is its only name of the mesh. DNS names and addresses are for clients
/// that know no SPIFFE.
pub(super) fn workload(
    ca: &Issuer<'_, KeyPair>,
    id: &SpiffeId,
    also: &[SanType],
    lifetime: Duration,
) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = valid(lifetime);
    parameters.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
    parameters.subject_alt_names.extend_from_slice(also);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&key, ca)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A name of a certificate that is not its SPIFFE id: an IP address or a DNS name.
pub(super) fn other_name(text: &str) -> Result<SanType, rcgen::Error> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SanType::IpAddress(ip)),
        Err(_) => Ok(SanType::DnsName(text.try_into()?)),
    }
}

fn authority(name: &str, path: BasicConstraints, lifetime: Duration) -> CertificateParams {
    let mut parameters = valid(lifetime);
    parameters.distinguished_name.push(DnType::OrganizationName, "Pillion");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(path);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn valid(lifetime: Duration) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - BACKDATED;
    parameters.not_after = now + lifetime;
    let mut serial = [0_u8; 16];
    rand::rng().fill_bytes(&mut serial);
    // Positive: the first bit of a DER integer is its sign.
    serial[0] &= 0x7f;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters
}
