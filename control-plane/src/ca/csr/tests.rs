use super::*;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SignatureAlgorithm,
};

fn caller() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap()
}

fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
    request_with(&rcgen::PKCS_ECDSA_P256_SHA256, change)
}

fn request_with(algorithm: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn refusal(pem: &str) -> &'static str {
    public_key(pem, &caller()).map_or_else(|error| error.reason(), |_| "accepted")
}

#[test]
fn a_bare_key_or_the_own_name_is_accepted() {
    assert_eq!(refusal(&request(|_| {})), "accepted");
    assert_eq!(refusal(&request(|params| params.subject_alt_names = vec![uri(&caller().to_string())])), "accepted");
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        assert_eq!(refusal(&request_with(algorithm, |_| {})), "accepted");
    }
}

#[test]
fn whatever_else_is_asked_for_is_refused() {
    let own = caller().to_string();
    let other = "spiffe://cluster.local/ns/shop/sa/payment";
    let cases: [(&str, String); 9] = [
        ("asks_for_ca", request(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("other_extension", request(|params| params.is_ca = IsCa::ExplicitNoCa)),
        ("other_name", request(|params| params.subject_alt_names = vec![uri(other)])),
        ("other_name", request(|params| params.subject_alt_names = vec![uri(&own), uri(other)])),
        (
            "other_name",
            request(|params| {
                params.subject_alt_names = vec![uri(&own), SanType::DnsName("localhost".try_into().unwrap())];
            }),
        ),
        (
            "other_name",
            request(|params| {
                params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
            }),
        ),
        ("other_extension", request(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign])),
        (
            "other_extension",
            request(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            }),
        ),
        (
            "other_extension",
            request(|params| {
                params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
            }),
        ),
    ];
    for (reason, pem) in cases {
        assert_eq!(refusal(&pem), reason);
    }
}

#[test]
fn weak_and_unusual_keys_are_refused() {
    assert_eq!(refusal(&request_with(&rcgen::PKCS_ECDSA_P521_SHA512, |_| {})), "weak_key");
    // RSA of 1024 bits, made with `openssl req -new -newkey rsa:1024 -nodes -subj /CN=x`.
    assert_eq!(refusal(include_str!("rsa1024.csr")), "weak_key");
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let der = |pem: &str| {
        let (block, _) = Pem::read(std::io::Cursor::new(pem.as_bytes())).unwrap();
        block.contents
    };
    let mut bytes = der(&request(|_| {}));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let text = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes)
    );
    assert_eq!(refusal(&text), "bad_signature");
}

#[test]
fn oversize_and_garbage_are_refused() {
    assert_eq!(refusal(&"x".repeat(MAX_CSR_BYTES + 1)), "oversize");
    for text in ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\n"] {
        assert_eq!(refusal(text), "malformed");
    }
    let certificate = request(|_| {}).replace("CERTIFICATE REQUEST", "CERTIFICATE");
    assert_eq!(refusal(&certificate), "malformed");
}

proptest! {
    #[test]
    fn altered_requests_never_panic_and_never_gain_a_name(position in 0usize..400, flip in 1u8..) {
        let (block, _) = Pem::read(std::io::Cursor::new(request(|_| {}).into_bytes())).unwrap();
        let mut bytes = block.contents;
        let at = position % bytes.len();
        bytes[at] ^= flip;
        let text = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes)
        );
        let _ = public_key(&text, &caller());
    }
}
