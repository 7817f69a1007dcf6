//! Getting a certificate: a new key, a CSR, the control plane's CA, and a close look at what comes back.
//!
//! The key is made here for each certificate and leaves the process's memory only for
//! a [`crate::store::Store`], if we were given one. What the CA answers is checked as a peer would check it, before
//! anybody uses it: a CA that is confused must not take a workload down that
//! still has a good certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pillion_wire::ca::client::IstioCertificateServiceClient;
use pillion_wire::ca::{CreateCertificateRequest, CreateCertificateResponse};
use pillion_wire::spiffe::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::server::VerifierBuilderError;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Identity;
use super::credentials::{Credentials, CredentialsError};
use crate::bootstrap::Bootstrap;
use crate::tls::control::{self, ControlError};
use crate::tls::provider;
use crate::tls::verify::{ClientVerifier, ServerVerifier};

/// Longest wait for the CA's answer, once connected.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A chain is a few certificates of about 1 KiB.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// A new identity, and the key that nobody else has.
#[derive(Debug)]
pub struct Issued {
    /// To be used.
    pub identity: Identity,
    /// As the CA sent it, PEM.
    chain: String,
    key: KeyPair,
}

impl Issued {
    /// Chain and key, PEM. To be kept secret.
    pub(super) fn to_pem(&self) -> String {
        format!("{}\n{}", self.chain, self.key.serialize_pem())
    }
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Nothing to ask with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The join token cannot be sent.
    #[error("the join token holds characters that HTTP does not allow")]
    Token(#[from] InvalidMetadataValue),
    /// The control plane cannot be reached.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Key or CSR could not be made.
    #[error("cannot make a key and a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The CA said no.
    #[error("the CA refused ({:?}): {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// The CA said nothing.
    #[error("the CA did not answer within {ANSWER_TIMEOUT:?}")]
    Timeout,
    /// What the CA sent is of no use.
    #[error("the CA's answer is of no use: {0}")]
    Answer(#[from] AnswerError),
}

/// What is wrong with a certificate that the CA sent.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// No certificate in it.
    #[error("it holds no certificate")]
    Empty,
    /// Not PEM.
    #[error("it is not PEM: {0}")]
    Pem(#[from] pem::Error),
    /// Not X.509.
    #[error("its first certificate cannot be parsed")]
    Malformed,
    /// The certificate is for another key, or no peer would accept it.
    #[error("{0}")]
    Rejected(#[from] rustls::Error),
    /// There is no root to check it by.
    #[error("{0}")]
    NoRoot(#[from] VerifierBuilderError),
}

impl IssueError {
    /// A short reason for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Credentials(_) | Self::Token(_) => "credentials",
            Self::Control(_) => "unreachable",
            Self::Request(_) => "request",
            Self::Refused(_) => "refused",
            Self::Timeout => "timeout",
            Self::Answer(_) => "answer",
        }
    }
}

/// Asks the CA for a certificate, as `current` while that is valid, else with the join token.
///
/// `failures` counts the attempts in a row that came to nothing: after an odd number the token is tried.
///
/// # Errors
/// [`IssueError`]; nothing has changed then.
///
/// # Cancel safety
/// Dropping the future forgets the new key; the CA may have signed a certificate that nobody has the key of.
pub async fn issue(bootstrap: &Bootstrap, current: Option<&Identity>, failures: u32) -> Result<Issued, IssueError> {
    let Credentials { roots, proof } = Credentials::load(bootstrap, current, failures)?;
    let key = KeyPair::generate()?;
    let mut request = Request::new(CreateCertificateRequest {
        csr: signing_request(&bootstrap.id, &key)?,
        validity_duration: i64::try_from(bootstrap.certificate_lifetime.as_secs().max(1)).unwrap_or(i64::MAX),
        metadata: None,
    });
    proof.authorize(request.metadata_mut())?;
    let address = &bootstrap.control_plane.address;
    let channel = control::connect(address, &bootstrap.id, Arc::clone(&roots), proof.certificate()).await?;
    let mut client = IstioCertificateServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.create_certificate(request)).await;
    let answer = answer.map_err(|_elapsed| IssueError::Timeout)?;
    let answer = answer.map_err(|status| IssueError::Refused(Box::new(status)))?;
    let answer = answer.into_inner();
    let identity = accept(&bootstrap.id, &key, roots, &answer, SystemTime::now())?;
    Ok(Issued { identity, chain: answer.cert_chain.join("\n"), key })
}

fn signing_request(id: &SpiffeId, key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().as_str().try_into()?)];
    params.serialize_request(key)?.pem()
}

/// An identity from the CA's answer, if every peer would accept it.
pub(super) fn accept(
    id: &SpiffeId,
    key: &KeyPair,
    roots: Arc<RootCertStore>,
    answer: &CreateCertificateResponse,
    now: SystemTime,
) -> Result<Identity, AnswerError> {
    let mut chain = Vec::new();
    for text in &answer.cert_chain {
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            chain.push(certificate?);
        }
    }
    // Peers have their own roots: sending ours along would only cost bytes.
    let leaf = chain.first().cloned().ok_or(AnswerError::Empty)?;
    chain.retain(|certificate| *certificate == leaf || !is_self_issued(certificate));
    let intermediates = chain.get(1..).unwrap_or_default();
    let time = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    ServerVerifier::new(id.clone(), Arc::clone(&roots), provider()).check(&leaf, intermediates, time)?;
    ClientVerifier::new(id.trust_domain().clone(), Arc::clone(&roots), provider())?.verify_client_cert(
        &leaf,
        intermediates,
        time,
    )?;
    let (not_before, not_after) = validity(&leaf)?;
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
    let private = provider().key_provider.load_private_key(private)?;
    let certified = CertifiedKey::new(chain, private);
    certified.keys_match()?;
    Ok(Identity { id: id.clone(), key: Arc::new(certified), roots, not_before, not_after })
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.issuer() == parsed.subject())
}

fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), AnswerError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_cause| AnswerError::Malformed)?;
    let at = |seconds: i64| {
        let seconds = u64::try_from(seconds).map_err(|_negative| AnswerError::Malformed)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(AnswerError::Malformed)
    };
    let validity = parsed.validity();
    Ok((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

#[cfg(test)]
mod tests;
