//! Certificate requests: whatever is accepted leads to a certificate that says
//! only who called.

#![no_main]

use std::{sync::LazyLock, time::Duration};

use libfuzzer_sys::fuzz_target;
use pillion_control_plane::ca::{authority::Authority, csr, pem, sign::ServerNames};
use pillion_wire::spiffe::SpiffeId;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/orders";

static AUTHORITY: LazyLock<(Authority, SpiffeId)> = LazyLock::new(|| {
    let caller: SpiffeId = CALLER.parse().expect("an identity");
    let dir = std::env::temp_dir().join(format!("pillion-fuzz-csr-{}", std::process::id()));
    let authority = Authority::load_or_make(&dir, caller.trust_domain()).expect("an authority");
    std::fs::remove_dir_all(&dir).expect("its folder");
    (authority, caller)
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
    }
    // The same bytes as DER, since a fuzzer hardly finds base64.
    let block = pem::pem(&bytes.to_vec().into());
    check(&block.replace(" CERTIFICATE-", " CERTIFICATE REQUEST-"));
});

fn check(text: &str) {
    let (authority, caller) = &*AUTHORITY;
    let Ok(key) = csr::public_key(text, caller) else {
        return;
    };
    let leaf = authority
        .signer()
        .sign(caller, &key, Duration::from_secs(60), &ServerNames::default())
        .expect("an accepted key can be signed");
    let (_, leaf) = X509Certificate::from_der(&leaf).expect("a certificate");
    assert!(!leaf.is_ca());
    let names = leaf.subject_alternative_name().expect("one extension").expect("names");
    assert_eq!(names.value.general_names, [GeneralName::URI(CALLER)]);
}
