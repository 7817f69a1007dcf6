//! DNS: a client's query and what a nameserver says to it. What is no query is
//! refused or dropped; every answer of ours answers it, and fits.

#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use pillion_proxy::dns::message::{Malformed, Query, Transport, meaning};

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (asked, said) = rest.split_at(rest.len().min(usize::from(*length)));
    let _any = meaning(said);
    let id = asked.first_chunk::<2>().map(|id| u16::from_be_bytes(*id));
    let query = match Query::parse(asked.to_vec()) {
        Ok(query) => query,
        Err(Malformed { answer: Some(answer) }) => {
            assert_eq!(answer.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)), id);
            assert!(matches!(answer.get(2), Some(flags) if flags & 0x80 != 0), "a response");
            return;
        }
        Err(Malformed { answer: None }) => return,
    };
    let id = id.expect("a query has an id");
    assert!(query.name().ends_with('.') && query.name().is_ascii());
    assert!(!query.name().bytes().any(|byte| byte.is_ascii_uppercase()));

    let limit = query.limit(Transport::Udp);
    assert!(limit >= 512);
    let addresses: Vec<IpAddr> = (0..300u16)
        .flat_map(|n| [IpAddr::from([10, 0, 0, n as u8]), Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, n).into()])
        .collect();
    let mesh = query.family().map(|_| query.answer(&addresses, limit).expect("an answer"));
    for answer in [mesh, query.servfail()].into_iter().flatten() {
        assert!(answer.len() <= usize::from(limit));
        assert!(query.is_answered_by(&answer, id));
    }
    if query.is_answered_by(said, id) {
        assert_eq!(query.restored(said.to_vec()), said);
    }
    if let Some(stale) = query.stale_answer(said, limit) {
        assert!(stale.len() <= usize::from(limit));
        assert!(query.is_answered_by(&stale, id));
    }
});
