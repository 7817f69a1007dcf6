//! Who is at the other end: a peer is known by the SPIFFE id in its certificate, never by a DNS name or an address.
//!
//! A certificate counts when it chains to one of the mesh's roots, is valid now,
//! is no CA, and carries exactly one URI, a SPIFFE id. A *server* then has to be
//! exactly the one that was dialled; a *client* has to belong to our trust domain.
//!
//! rustls does not ask a verifier again on resumed sessions, and resumes only
//! under the very same verifier `Arc`: so these hold fixed roots, and new roots
//! mean a new verifier.

use std::io;
use std::sync::Arc;

use pillion_wire::spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Why a certificate that its CA vouches for is still not the peer that we want.
///
/// Travels inside rustls errors; [`peer_error`] finds it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a certificate.
    #[error("the peer's certificate cannot be parsed")]
    Malformed,
    /// No URI among its alternative names.
    #[error("the peer's certificate carries no SPIFFE id")]
    NoId,
    /// SPIFFE X.509-SVID, section 2: exactly one URI.
    #[error("the peer's certificate carries {0} URIs; a workload certificate has exactly one")]
    SeveralIds(usize),
    /// Its URI is no SPIFFE id of a workload.
    #[error("the peer's certificate carries a URI that is no workload id: {0}")]
    BadId(SpiffeIdError),
    /// Another workload answered.
    #[error("expected {expected}, but the peer is {actual}")]
    WrongId {
        /// Who was dialled.
        expected: SpiffeId,
        /// Who answered.
        actual: SpiffeId,
    },
    /// A peer of another mesh.
    #[error("{0} is not of our trust domain")]
    ForeignTrustDomain(SpiffeId),
}

/// The SPIFFE id in `certificate`. Says nothing about whether the certificate can be trusted.
///
/// # Errors
/// When it carries none, several, or something else.
pub fn spiffe_id_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|_cause| PeerError::Malformed)?;
    let mut uris = certificate.valid_uri_names();
    let first = uris.next().ok_or(PeerError::NoId)?;
    match uris.count() {
        0 => first.parse().map_err(PeerError::BadId),
        more => Err(PeerError::SeveralIds(more + 1)),
    }
}

/// The [`PeerError`] behind a failed handshake, if that is what it was.
pub fn peer_error(error: &Error) -> Option<&PeerError> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => cause.downcast_ref(),
        _ => None,
    }
}

/// A failed handshake in words that help: what is wrong with the peer's identity, when it was that.
pub fn explained(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()).and_then(peer_error);
    match cause {
        Some(cause) => io::Error::new(error.kind(), cause.clone()),
        None => error,
    }
}

/// Accepts one server only: the holder of `expected`.
#[derive(Debug)]
pub struct ServerVerifier {
    expected: SpiffeId,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    /// Accepts `expected` when one of `roots` vouches for it.
    pub fn new(expected: SpiffeId, roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Self {
        Self { expected, roots, provider }
    }

    /// Checks a chain as a handshake would.
    ///
    /// # Errors
    /// When it does not chain to a root, is not valid at `now`, or is somebody else's.
    pub fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let actual = spiffe_id_of(leaf).map_err(refused)?;
        if actual != self.expected {
            return Err(refused(PeerError::WrongId { expected: self.expected.clone(), actual }));
        }
        Ok(())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts any workload of one trust domain. A client certificate is mandatory.
#[derive(Debug)]
pub struct ClientVerifier {
    trust_domain: TrustDomain,
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    /// Accepts workloads of `trust_domain` that one of `roots` vouches for.
    ///
    /// # Errors
    /// When there is no root.
    pub fn new(
        trust_domain: TrustDomain,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        Ok(Self { trust_domain, chain })
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// None: the names of our roots are nobody else's business, and every sidecar has just one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let id = spiffe_id_of(end_entity).map_err(refused)?;
        if *id.trust_domain() != self.trust_domain {
            return Err(refused(PeerError::ForeignTrustDomain(id)));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn refused(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn only_tls13() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, IsCa, SanType};

    use super::*;
    use crate::tls::provider;
    use crate::tls::test_pki::{Authority, params};

    fn id(text: &str) -> SpiffeId {
        text.parse().expect("literal id")
    }

    const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";
    const PAYMENT: &str = "spiffe://cluster.local/ns/shop/sa/payment";

    fn check_server(authority: &Authority, leaf: &CertificateParams) -> Result<(), Error> {
        let (leaf, _key) = authority.sign(leaf);
        ServerVerifier::new(id(ORDERS), authority.roots(), provider()).check(
            &leaf,
            &authority.intermediates(),
            UnixTime::now(),
        )
    }

    fn check_client(authority: &Authority, leaf: &CertificateParams) -> Result<(), Error> {
        let (leaf, _key) = authority.sign(leaf);
        let domain = "cluster.local".parse().expect("literal");
        ClientVerifier::new(domain, authority.roots(), provider())
            .expect("there is a root")
            .verify_client_cert(&leaf, &authority.intermediates(), UnixTime::now())
            .map(|_verified| ())
    }

    #[test]
    fn the_dialled_workload_is_accepted_on_both_sides() {
        let authority = Authority::new();
        assert_eq!(check_server(&authority, &params(&[ORDERS])), Ok(()));
        assert_eq!(check_client(&authority, &params(&[ORDERS])), Ok(()));
        assert_eq!(check_client(&authority, &params(&[PAYMENT])), Ok(()));
    }

    #[test]
    fn a_dns_name_beside_the_id_does_no_harm() {
        let mut leaf = params(&[ORDERS]);
        leaf.subject_alt_names.push(SanType::DnsName("localhost".try_into().expect("ascii")));
        assert_eq!(check_server(&Authority::new(), &leaf), Ok(()));
    }

    #[test]
    fn another_workload_is_refused_and_both_are_named() {
        let error = check_server(&Authority::new(), &params(&[PAYMENT])).expect_err("wrong id");
        let expected = PeerError::WrongId { expected: id(ORDERS), actual: id(PAYMENT) };
        assert_eq!(peer_error(&error), Some(&expected));
    }

    #[test]
    fn another_mesh_is_refused_as_a_client() {
        let foreign = "spiffe://other.example/ns/shop/sa/orders";
        let error = check_client(&Authority::new(), &params(&[foreign])).expect_err("foreign");
        assert_eq!(peer_error(&error), Some(&PeerError::ForeignTrustDomain(id(foreign))));
    }

    #[test]
    fn a_certificate_of_another_root_is_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (leaf, _key) = theirs.sign(&params(&[ORDERS]));
        let error = ServerVerifier::new(id(ORDERS), ours.roots(), provider())
            .check(&leaf, &theirs.intermediates(), UnixTime::now())
            .expect_err("wrong root");
        // The two roots share a name, so that it is the signature which gives the other one away.
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        assert_eq!(peer_error(&error), None);
    }

    #[test]
    fn a_certificate_out_of_its_time_is_refused() {
        let authority = Authority::new();
        let (leaf, _key) = authority.sign(&params(&[ORDERS]));
        let verifier = ServerVerifier::new(id(ORDERS), authority.roots(), provider());
        let day = Duration::from_secs(86_400);
        let now = Duration::from_secs(UnixTime::now().as_secs());
        for (time, wanted) in [(now + 2 * day, "Expired"), (now - 2 * day, "NotValidYet")] {
            let error = verifier
                .check(&leaf, &authority.intermediates(), UnixTime::since_unix_epoch(time))
                .expect_err("out of time");
            assert!(format!("{error:?}").contains(wanted), "{error:?}");
        }
    }

    #[test]
    fn exactly_one_uri_is_needed() {
        let authority = Authority::new();
        let cases = [
            (params(&[]), PeerError::NoId),
            (params(&[ORDERS, PAYMENT]), PeerError::SeveralIds(2)),
            (params(&[ORDERS, "https://example.com"]), PeerError::SeveralIds(2)),
        ];
        for (leaf, wanted) in cases {
            for error in [check_server(&authority, &leaf), check_client(&authority, &leaf)] {
                assert_eq!(peer_error(&error.expect_err("refused")), Some(&wanted));
            }
        }
        let error = check_server(&authority, &params(&["https://example.com"])).expect_err("no workload");
        assert!(matches!(peer_error(&error), Some(PeerError::BadId(_))), "{error:?}");
    }

    #[test]
    fn a_ca_certificate_is_no_workload() {
        let mut leaf = params(&[ORDERS]);
        leaf.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = Authority::new();
        for result in [check_server(&authority, &leaf), check_client(&authority, &leaf)] {
            let error = result.expect_err("a CA");
            assert!(format!("{error:?}").contains("CaUsedAsEndEntity"), "{error:?}");
        }
    }

    #[test]
    fn the_purpose_of_a_certificate_counts() {
        let mut leaf = params(&[ORDERS]);
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let authority = Authority::new();
        assert!(check_server(&authority, &leaf).is_err());
        assert_eq!(check_client(&authority, &leaf), Ok(()));
    }

    #[test]
    fn garbage_is_no_certificate() {
        assert_eq!(spiffe_id_of(&CertificateDer::from(vec![0x30, 0x80, 1, 2])), Err(PeerError::Malformed));
    }
}
