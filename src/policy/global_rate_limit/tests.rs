use std::net::Ipv4Addr;
use std::time::Duration;

use http::Request;
use pillion_wire::xds::Duration as PbDuration;
use pillion_wire::xds::core::HeaderValue as PbHeader;
use pillion_wire::xds::rate_limit_service::RateLimitResponse;
use pillion_wire::xds::rate_limit_service::rate_limit_response::rate_limit::Unit;
use pillion_wire::xds::rate_limit_service::rate_limit_response::{Code, DescriptorStatus, RateLimit};

use super::*;
use crate::config::{HeaderMatch, RATE_LIMIT_TIMEOUT, ValueMatch};

const PEER: &str = "spiffe://cluster.local/ns/shop/sa/red";

fn limit(descriptors: Vec<Vec<(EntryValue, bool)>>) -> GlobalRateLimit {
    let entry = |(value, is_optional)| Entry { key: "k".to_owned(), value, is_optional };
    let descriptor =
        |entries: Vec<_>| Descriptor { entries: entries.into_iter().map(entry).collect(), limit: None, hits: None };
    GlobalRateLimit {
        cluster: "limits.shop:80".to_owned(),
        authority: "limits.shop:80".to_owned(),
        domain: "shop".to_owned(),
        timeout: RATE_LIMIT_TIMEOUT,
        on_failure: None,
        status: http::StatusCode::TOO_MANY_REQUESTS,
        resource_exhausted: true,
        tell_limits: false,
        tell_limited: true,
        answers: Vec::new(),
        descriptors: descriptors.into_iter().map(descriptor).collect(),
    }
}

/// The values of each descriptor for a request of `peer`.
fn asked(descriptors: Vec<Vec<(EntryValue, bool)>>, peer: &str, address: &str) -> Vec<Vec<String>> {
    let request = Request::builder()
        .method("PUT")
        .uri("http://api.shop/a/b?c=d")
        .header("x-key", "one")
        .header("x-key", "two")
        .header("x-empty", "");
    let parts = request.body(()).expect("valid").into_parts().0;
    let source = Source { address: address.parse().expect("an address"), peer };
    let Some(question) = question(&limit(descriptors), source, &parts) else { return Vec::new() };
    assert_eq!((question.domain.as_str(), question.hits_addend), ("shop", 0));
    let values = |told: RateLimitDescriptor| told.entries.into_iter().map(|entry| entry.value).collect();
    question.descriptors.into_iter().map(values).collect()
}

fn field(name: &'static str) -> EntryValue {
    EntryValue::Header(HeaderName::Field(http::HeaderName::from_static(name)))
}

fn present(name: &'static str, expected: bool) -> EntryValue {
    let name = HeaderName::Field(http::HeaderName::from_static(name));
    EntryValue::HeaderMatch(
        "yes".to_owned(),
        vec![HeaderMatch { name, value: ValueMatch::Present, invert: false }],
        expected,
    )
}

#[test]
fn each_value_comes_from_where_it_says() {
    for (value, expected) in [
        (EntryValue::Fixed("v".to_owned()), Some("v")),
        (EntryValue::SourceAddress, Some("10.1.2.3")),
        (EntryValue::SourceNetwork(16, 64), Some("10.1.0.0/16")),
        (field("x-key"), Some("one")),
        (field("x-empty"), Some("")),
        (field("x-none"), None),
        (EntryValue::Header(HeaderName::Method), Some("PUT")),
        (EntryValue::Header(HeaderName::Path), Some("/a/b?c=d")),
        (EntryValue::Header(HeaderName::Authority), Some("api.shop")),
        (EntryValue::Path, Some("/a/b")),
        (EntryValue::Caller, Some(PEER)),
        (EntryValue::ProvenCaller, Some(PEER)),
        (present("x-key", true), Some("yes")),
        (present("x-key", false), None),
        (present("x-none", false), Some("yes")),
    ] {
        let found = asked(vec![vec![(value.clone(), false)]], PEER, "::ffff:10.1.2.3");
        let expected: Vec<Vec<String>> = expected.into_iter().map(|value| vec![value.to_owned()]).collect();
        assert_eq!(found, expected, "{value:?}");
    }
    let of = |value| asked(vec![vec![(value, false)]], "", "2001:db8::1");
    assert_eq!(of(EntryValue::Caller), [["outside"]], "callers outside the mesh are one");
    assert!(of(EntryValue::ProvenCaller).is_empty());
    assert_eq!(of(EntryValue::SourceNetwork(16, 64)), [["2001:db8::/64"]]);
}

#[test]
fn a_descriptor_without_one_of_its_values_is_left_out_and_without_any_nobody_is_asked() {
    let fixed = || EntryValue::Fixed("v".to_owned());
    let both = |optional| vec![(fixed(), false), (field("x-none"), optional)];
    let address = Ipv4Addr::LOCALHOST.to_string();
    assert_eq!(asked(vec![both(false), vec![(EntryValue::Path, false)]], PEER, &address), [["/a/b"]]);
    assert_eq!(asked(vec![both(true)], PEER, &address), [["v"]]);
    for nothing in [vec![], vec![both(false)], vec![vec![(field("x-none"), true)]]] {
        assert!(asked(nothing, PEER, &address).is_empty());
    }
}

fn status(code: Code, name: &str, limit: (u32, Unit), left: u32, reset: i64) -> DescriptorStatus {
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit { name: name.to_owned(), requests_per_unit: limit.0, unit: limit.1.into() }),
        limit_remaining: left,
        duration_until_reset: Some(PbDuration { seconds: reset, nanos: 0 }),
        quota: None,
    }
}

fn header(key: &str, value: &str) -> PbHeader {
    PbHeader { key: key.to_owned(), value: value.to_owned(), ..PbHeader::default() }
}

#[test]
fn answers_are_read_as_envoy_reads_them() {
    let statuses = vec![
        status(Code::Ok, "first", (1, Unit::Minute), 2, 3),
        status(Code::Ok, "", (4, Unit::Hour), 5, 6),
        status(Code::Ok, "odd\"", (7, Unit::Unknown), 8, 9),
    ];
    let passed = RateLimitResponse {
        overall_code: Code::Ok.into(),
        statuses,
        request_headers_to_add: vec![header("x-tier", "gold"), header("connection", "close"), header("b d", "")],
        response_headers_to_add: vec![header("x-left", "2"), header("x-left", "3"), header("x-pillion-reason", "x")],
        ..RateLimitResponse::default()
    };
    let Answer::Pass(told) = read(passed.clone(), true) else { panic!("it passes") };
    assert_eq!(told.request.len(), 1, "{told:?}");
    assert_eq!(told.request["x-tier"], "gold");
    assert_eq!(told.response.get_all("x-left").iter().collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(told.response["x-ratelimit-limit"], "1, 1;w=60;name=\"first\", 4;w=3600");
    assert_eq!(told.response["x-ratelimit-remaining"], "2");
    assert_eq!(told.response["x-ratelimit-reset"], "3");
    assert!(!told.response.contains_key("x-pillion-reason"));
    let Answer::Pass(told) = read(passed, false) else { panic!("it passes") };
    assert_eq!(told.response.len(), 2, "what is left is told only where it was asked for");
}

#[test]
fn who_is_refused_waits_for_the_limit_that_takes_longest() {
    let refused = RateLimitResponse {
        overall_code: Code::OverLimit.into(),
        statuses: vec![
            status(Code::OverLimit, "short", (1, Unit::Second), 0, 1),
            status(Code::OverLimit, "long", (5, Unit::Hour), 0, 1800),
            status(Code::Ok, "longer", (5, Unit::Day), 4, 80_000),
        ],
        raw_body: b"enough".to_vec(),
        ..RateLimitResponse::default()
    };
    let Answer::Refuse { fields, body, name, reset } = read(refused, false) else { panic!("it is refused") };
    assert_eq!((fields.len(), &body[..], name.as_deref()), (0, &b"enough"[..], Some("long")));
    assert_eq!(reset, Some(Duration::from_secs(1800)));
    let bare = RateLimitResponse { overall_code: Code::OverLimit.into(), ..RateLimitResponse::default() };
    assert!(matches!(read(bare, true), Answer::Refuse { name: None, reset: None, .. }));
    let broken = DescriptorStatus {
        duration_until_reset: Some(PbDuration { seconds: -1, nanos: -1 }),
        ..status(Code::OverLimit, "x", (1, Unit::Second), 0, 0)
    };
    let broken =
        RateLimitResponse { overall_code: Code::OverLimit.into(), statuses: vec![broken], ..Default::default() };
    assert!(matches!(read(broken, true), Answer::Refuse { reset: None, .. }));
    assert_eq!(read(RateLimitResponse::default(), true), Answer::Unknown);
    assert_eq!(read(RateLimitResponse { overall_code: 9, ..Default::default() }, true), Answer::Unknown);
}
