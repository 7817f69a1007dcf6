//! Certificate requests (RFC 2986): one public key is taken out, the rest is refused.
//!
//! A request must not be able to say anything about the certificate. So whatever
//! it asks for besides its own identity is refused rather than ignored: a client
//! that asks for more than it may have is broken or hostile, and should be told.

use pillion_wire::{ca::MAX_CSR_BYTES, spiffe::SpiffeId};
use rcgen::SubjectPublicKeyInfo;
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::Pem,
    prelude::FromDer as _,
    public_key::PublicKey,
};

/// The shortest RSA key, in bits (CA/Browser Forum baseline, section 6.1.5).
const MIN_RSA_BITS: usize = 2048;
/// The longest RSA key: checking its signature costs time by its cube.
const MAX_RSA_BITS: usize = 8192;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Too long.
    #[error("it is longer than {MAX_CSR_BYTES} bytes")]
    Oversize,
    /// Not PEM of a request.
    #[error("it is not one PEM block CERTIFICATE REQUEST with a PKCS #10 request in it")]
    Malformed,
    /// Its key is of a kind, or a length, that is not allowed.
    #[error("its key is not one of P-256, P-384, Ed25519 and RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")]
    Key,
    /// It was not signed with its own key.
    #[error("its signature is not by its own key")]
    Signature,
    /// It asks to be an authority.
    #[error("it asks to be a certificate authority")]
    Authority,
    /// It asks for a name other than the caller's.
    #[error("it asks for the name {0}, which is not the caller's")]
    Name(String),
    /// It asks for some other extension.
    #[error("it asks for the extension {0}; only the caller's own name may be asked for")]
    Extension(String),
}

impl CsrError {
    /// A stable name for metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Oversize => "oversize",
            Self::Malformed => "malformed",
            Self::Key => "weak_key",
            Self::Signature => "bad_signature",
            Self::Authority => "asks_for_ca",
            Self::Name(_) => "other_name",
            Self::Extension(_) => "other_extension",
        }
    }

    /// Whether the caller asked for what it may not have, rather than wrongly.
    #[must_use]
    pub const fn is_forbidden(&self) -> bool {
        matches!(self, Self::Authority | Self::Name(_))
    }
}

/// The public key of the request `pem`, made by `caller`.
///
/// # Errors
///
/// When it is not a request, not signed by its own key, or asks for anything but
/// the caller's own name.
pub fn public_key(pem: &str, caller: &SpiffeId) -> Result<SubjectPublicKeyInfo, CsrError> {
    if pem.len() > MAX_CSR_BYTES {
        return Err(CsrError::Oversize);
    }
    let (block, _) = Pem::read(std::io::Cursor::new(pem.as_bytes())).map_err(|_| CsrError::Malformed)?;
    if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(CsrError::Malformed);
    }
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let key = strong_key(&request)?;
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    check_extensions(&request, caller)?;
    Ok(key)
}

/// The key, when it is of an allowed kind. Taken from the request's own
/// SubjectPublicKeyInfo: the algorithm of its signature says nothing about the curve.
fn strong_key(request: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, CsrError> {
    let info = &request.certification_request_info.subject_pki;
    match info.parsed().map_err(|_| CsrError::Key)? {
        PublicKey::RSA(rsa) if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size()) => {
            return Err(CsrError::Key);
        }
        _ => {}
    }
    let key = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| CsrError::Key)?;
    let algorithm = rcgen::PublicKeyData::algorithm(&key);
    let allowed =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256];
    if !allowed.contains(&algorithm) {
        return Err(CsrError::Key);
    }
    Ok(key)
}

fn check_extensions(request: &X509CertificationRequest<'_>, caller: &SpiffeId) -> Result<(), CsrError> {
    use x509_parser::cri_attributes::ParsedCriAttribute;
    for attribute in request.certification_request_info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => {
                for extension in &requested.extensions {
                    check_extension(&extension.oid.to_id_string(), extension.parsed_extension(), caller)?;
                }
            }
            _ => return Err(CsrError::Extension(attribute.oid.to_id_string())),
        }
    }
    Ok(())
}

fn check_extension(oid: &str, extension: &ParsedExtension<'_>, caller: &SpiffeId) -> Result<(), CsrError> {
    match extension {
        ParsedExtension::BasicConstraints(constraints) if constraints.ca => Err(CsrError::Authority),
        ParsedExtension::SubjectAlternativeName(names) => {
            let own = caller.to_string();
            match names.general_names.as_slice() {
                [GeneralName::URI(uri)] if *uri == own => Ok(()),
                [] => Err(CsrError::Name("(empty)".to_owned())),
                several => {
                    let other = several.iter().find(|name| !matches!(name, GeneralName::URI(uri) if *uri == own));
                    Err(CsrError::Name(other.map_or_else(|| format!("{own}, several times"), printable)))
                }
            }
        }
        _ => Err(CsrError::Extension(oid.to_owned())),
    }
}

/// The name for a message: short, on one line.
fn printable(name: &GeneralName<'_>) -> String {
    let text = name.to_string();
    text.chars().filter(|character| !character.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests;
