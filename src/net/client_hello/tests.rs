use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::ClientHelloVerdict::{Is, More, Unreadable};
use super::*;
use crate::tls::provider;

/// What a real client sends first.
fn real(server: &str, alpn: &[&str], post_quantum: bool) -> Vec<u8> {
    let mut provider = provider().as_ref().clone();
    if !post_quantum {
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let server = ServerName::try_from(server.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same hello in records of `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    hello[HEADER..].chunks(size).flat_map(record).collect()
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

/// A hello of TLS 1.2 with exactly these extensions; none: without the field.
fn handmade(extensions: Option<&[(u16, Vec<u8>)]>) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0]].concat();
    if let Some(extensions) = extensions {
        let list: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &vector(content)].concat())
            .collect();
        body.extend(vector(&list));
    }
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    record(&[&[CLIENT_HELLO], &length[1..], &body].concat())
}

fn vector(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

/// A `server_name` extension of these host names.
fn names(names: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<u8> = names.iter().flat_map(|name| [&[HOST_NAME][..], &vector(name)].concat()).collect();
    (SERVER_NAME, vector(&list))
}

fn is(sni: Option<&str>, alpn: &[&str]) -> ClientHelloVerdict {
    Is(ClientHello { sni: sni.map(str::to_owned), alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect() })
}

#[test]
fn hellos_of_a_real_client_are_read() {
    for (server, sni) in [
        ("orders.shop", Some("orders.shop")),
        ("Orders.SHOP.svc.cluster.local", Some("orders.shop.svc.cluster.local")),
        ("192.0.2.7", None),
        ("2001:db8::7", None),
    ] {
        for alpn in [&[][..], &["h2", "http/1.1"]] {
            for post_quantum in [true, false] {
                let hello = real(server, alpn, post_quantum);
                assert_eq!(hello.len() > 1200, post_quantum, "{} bytes", hello.len());
                assert_eq!(client_hello(&hello), is(sni, alpn), "{server}");
            }
        }
    }
}

#[test]
fn a_hello_over_several_records_is_the_same_hello() {
    let hello = real("orders.shop", &["h2"], true);
    let payload = hello.len() - HEADER;
    for size in [payload, payload - 1, 1000, 100, payload.div_ceil(MAX_RECORDS)] {
        assert_eq!(client_hello(&in_records(&hello, size)), is(Some("orders.shop"), &["h2"]), "{size}");
    }
    assert_eq!(client_hello(&in_records(&hello, 1)), Unreadable, "more than {MAX_RECORDS} records");
}

#[test]
fn odd_hellos_are_judged() {
    for (what, hello, verdict) in [
        ("no extensions at all", handmade(None), is(None, &[])),
        ("an empty list of extensions", handmade(Some(&[])), is(None, &[])),
        ("an unknown extension", handmade(Some(&[(0x0a0a, vec![0])])), is(None, &[])),
        ("a name", handmade(Some(&[names(&[b"Orders.Shop"])])), is(Some("orders.shop"), &[])),
        ("a dot at the end", handmade(Some(&[names(&[b"orders.shop."])])), is(Some("orders.shop"), &[])),
        ("an address as name", handmade(Some(&[names(&[b"192.0.2.7"])])), is(None, &[])),
        ("no text", handmade(Some(&[names(&[b"\xff\xfe"])])), is(None, &[])),
        ("a zero byte", handmade(Some(&[names(&[b"orders.shop\0.evil"])])), is(None, &[])),
        ("two names", handmade(Some(&[names(&[b"a.shop", b"b.shop"])])), Unreadable),
        ("no name", handmade(Some(&[names(&[])])), Unreadable),
        ("an empty name", handmade(Some(&[names(&[b""])])), Unreadable),
        ("names twice", handmade(Some(&[names(&[b"a.shop"]), names(&[b"b.shop"])])), Unreadable),
        ("a name of another kind", handmade(Some(&[(SERVER_NAME, vector(&[9, 1, 2]))])), is(None, &[])),
        ("protocols", handmade(Some(&[(ALPN, vector(b"\x02h2\x03foo"))])), is(None, &["h2", "foo"])),
        ("no protocol", handmade(Some(&[(ALPN, vector(b""))])), Unreadable),
        ("an empty protocol", handmade(Some(&[(ALPN, vector(b"\x00"))])), Unreadable),
        ("a protocol cut short", handmade(Some(&[(ALPN, vector(b"\x03h2"))])), Unreadable),
        ("bytes after the list", handmade(Some(&[(ALPN, [&vector(b"\x02h2")[..], b"x"].concat())])), Unreadable),
    ] {
        assert_eq!(client_hello(&hello), verdict, "{what}");
    }
}

#[test]
fn what_is_no_hello_is_unreadable_at_once() {
    for (what, bytes, verdict) in [
        ("nothing", vec![], More),
        ("the first byte", vec![22], More),
        ("a header", vec![22, 3, 1, 0, 9], More),
        ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), Unreadable),
        ("an alert", vec![21], Unreadable),
        ("SSL 2", vec![22, 2], Unreadable),
        ("an empty record", vec![22, 3, 1, 0, 0], Unreadable),
        ("a record too long", vec![22, 3, 1, 0x40, 1], Unreadable),
        ("a ServerHello", vec![22, 3, 3, 0, 9, 2], Unreadable),
        ("an enormous message", vec![22, 3, 1, 0x40, 0, 1, 1, 0, 0], Unreadable),
        ("another record before the end", [&record(&[1, 0, 0, 200])[..], &[23]].concat(), Unreadable),
        ("garbage inside", record(&[1, 0, 0, 4, 3, 3, 1, 1]), Unreadable),
    ] {
        assert_eq!(client_hello(&bytes), verdict, "{what}");
    }
}

#[test]
fn an_unfinished_hello_is_given_up_at_the_bound() {
    // A message that just does not fit: 16 KiB of it in one record, the rest in the next.
    let length = u32::try_from(MAX_CLIENT_HELLO).unwrap().to_be_bytes();
    let message = [&[CLIENT_HELLO][..], &length[1..], &vec![0; MAX_CLIENT_HELLO]].concat();
    let bytes = in_records(&[&[0; HEADER][..], &message].concat(), 1 << 14);
    assert_eq!(client_hello(&bytes[..MAX_CLIENT_HELLO - 1]), More);
    assert_eq!(client_hello(&bytes[..MAX_CLIENT_HELLO]), Unreadable);
    assert_eq!(client_hello(&bytes), Unreadable);
}

/// Every prefix in turn, as they come off a socket that gives single bytes.
fn verdict_never_changes(bytes: &[u8]) -> Result<ClientHelloVerdict, TestCaseError> {
    let mut verdict = More;
    for end in 0..=bytes.len() {
        let next = client_hello(&bytes[..end]);
        if verdict != More {
            prop_assert_eq!(&next, &verdict, "after {} bytes", end);
        }
        verdict = next;
    }
    Ok(verdict)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hello_is_read_however_it_arrives(size in 32usize..4000, post_quantum: bool, after: Vec<u8>) {
        let hello = in_records(&real("orders.shop", &["h2"], post_quantum), size);
        let whole = hello.len();
        let bytes = [hello, after].concat();
        prop_assert_eq!(client_hello(&bytes[..whole - 1]), More);
        prop_assert_eq!(verdict_never_changes(&bytes)?, is(Some("orders.shop"), &["h2"]));
    }

    #[test]
    fn changed_bytes_are_judged_once_and_for_all(changes in prop::collection::vec((5usize..300, any::<u8>()), 1..4)) {
        let mut hello = real("orders.shop", &["h2"], false);
        for (at, byte) in changes {
            if let Some(old) = hello.get_mut(at) {
                *old = byte;
            }
        }
        verdict_never_changes(&hello)?;
    }

    #[test]
    fn any_bytes_are_judged_once_and_for_all(bytes: Vec<u8>) {
        verdict_never_changes(&record(&[&[CLIENT_HELLO, 0, 0, 60][..], &bytes].concat()))?;
        verdict_never_changes(&bytes)?;
    }
}
