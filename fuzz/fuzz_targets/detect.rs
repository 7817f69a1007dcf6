//! The first bytes of a connection: a verdict is reached within its bound, stays
//! the same whatever follows, and names of servers have one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillion_proxy::net::{ClientHello, ClientHelloVerdict, MAX_CLIENT_HELLO, Protocol, Verdict, client_hello, detect};
use pillion_wire::name::host_name;

fuzz_target!(|bytes: &[u8]| {
    let protocol = detect(bytes);
    let hello = client_hello(bytes);
    // A request line may be needed to its end.
    assert!(bytes.len() < 24 || !bytes.contains(&b'\n') || protocol != Verdict::More);
    assert!(bytes.len() < MAX_CLIENT_HELLO || hello != ClientHelloVerdict::More);

    // The fuzzer makes the cuts: a byte at a time would be quadratic.
    let cut = bytes.len() / 2;
    for end in [cut, bytes.len().saturating_sub(1)] {
        let before = bytes.get(..end).expect("a prefix");
        assert!(detect(before) == Verdict::More || detect(before) == protocol);
        let earlier = client_hello(before);
        assert!(earlier == ClientHelloVerdict::More || earlier == hello);
    }

    if let ClientHelloVerdict::Is(ClientHello { sni, alpn }) = hello {
        assert_eq!(protocol, Verdict::Is(Protocol::Tls));
        if let Some(sni) = sni {
            assert_eq!(host_name(&sni).as_ref(), Ok(&sni));
        }
        assert!(alpn.iter().all(|name| !name.is_empty()));
    }
});
