//! SPIFFE ids: one spelling each, so that whatever parses prints the same text,
//! and its parts make the same id.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion_wire::spiffe::{SpiffeId, TrustDomain};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.to_string(), text);
    }
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        assert!(text.len() <= 2048);
        assert_eq!(SpiffeId::new(id.trust_domain(), id.namespace(), id.service_account()).as_ref(), Ok(&id));
    }
});
