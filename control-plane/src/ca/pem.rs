//! Certificates as text (RFC 7468).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;

/// Characters per line of the body.
const LINE: usize = 64;

/// The certificate as a PEM block.
#[must_use]
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut block = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(LINE) {
        block.push_str(&String::from_utf8_lossy(line));
        block.push('\n');
    }
    block.push_str("-----END CERTIFICATE-----\n");
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::{collection::vec, prelude::*};
    use rustls_pki_types::pem::PemObject as _;

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes in vec(any::<u8>(), 1..200)) {
            let certificate = CertificateDer::from(bytes);
            let read = CertificateDer::from_pem_slice(pem(&certificate).as_bytes());
            prop_assert_eq!(read.unwrap(), certificate);
        }
    }
}
