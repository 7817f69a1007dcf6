use proptest::prelude::*;

use super::*;
use crate::xds::core::Metadata;

fn metadata(key: &str, content: Struct) -> Metadata {
    Metadata { filter_metadata: HashMap::from([(key.to_owned(), content)]), ..Metadata::default() }
}

fn time() -> impl Strategy<Value = Duration> {
    (0..u32::MAX).prop_map(|millis| Duration::from_millis(millis.into()))
}

prop_compose! {
    fn breaker()(
        consecutive in any::<Option<u32>>(), rate in prop::option::of((1u32..=100, time(), any::<u32>())),
        open in time(), more in time(), jitter_percent in 0u32..=100, (probes, successes) in (1u32..9, 1u32..9),
        keep in any::<u32>(), flags in any::<[bool; 5]>(), statuses in any::<BTreeSet<u16>>(),
        grpc in any::<BTreeSet<u8>>(), slow in prop::option::of(time()),
    ) -> Breaker {
        let [server_errors, gateway_errors, connect, reset, timeout] = flags;
        Breaker {
            consecutive,
            rate: rate.map(|(percent, window, minimum)| FailureRate { percent, window, minimum }),
            open, max_open: open.max(more), jitter_percent, probes, successes: successes.min(probes), keep,
            failures: Failures { server_errors, gateway_errors, connect, reset, timeout, statuses, grpc, slow },
        }
    }
}

proptest! {
    #[test]
    fn a_breaker_survives_the_wire(breaker in breaker()) {
        let told = metadata(BREAKER_METADATA, breaker.to_struct());
        prop_assert_eq!(Breaker::from_metadata(&told), Ok(Some(breaker)));
    }

    #[test]
    fn limits_survive_the_wire(pending_timeout in time(), endpoint_requests in any::<Option<u32>>()) {
        let limits = Limits { pending_timeout, endpoint_requests, ..Limits::default() };
        let mut read = Limits::default();
        prop_assert_eq!(read.extend(&metadata(LIMITS_METADATA, limits.to_struct())), Ok(()));
        prop_assert_eq!(read, limits);
    }
}

#[test]
fn a_fallback_survives_the_wire() {
    let backends = ["a.shop:80", "b.shop:81"].map(|name| name.parse().unwrap()).to_vec();
    for response in [None, Some((503, "later".to_owned()))] {
        let fallback = Fallback { backends: backends.clone(), response };
        let told = metadata(FALLBACK_METADATA, fallback.to_struct());
        assert_eq!(Fallback::from_metadata(&told), Ok(Some(fallback)));
    }
    let told = metadata(FALLBACK_METADATA, object(vec![("status", number(100))]));
    assert!(matches!(Fallback::from_metadata(&told), Err(MeshError::Field { field: "status", .. })));
}

#[test]
fn what_makes_no_sense_is_refused_by_its_name() {
    for (field, kind) in [
        ("probes", number(0)),
        ("successes", number(2)),
        ("ratePercent", number(101)),
        ("openMs", Kind::NumberValue(1.5)),
        ("statuses", list([70_000_u32].into_iter())),
        ("grpc", Kind::BoolValue(true)),
        ("serverErrors", number(1)),
    ] {
        let told = metadata(BREAKER_METADATA, object(vec![(field, kind)]));
        let Err(MeshError::Field { field: named, .. }) = Breaker::from_metadata(&told) else { panic!("{field}") };
        assert_eq!(named, field);
    }
    assert_eq!(
        Breaker::from_metadata(&metadata(BREAKER_METADATA, Struct::default())).map(|read| read.is_some()),
        Ok(true)
    );
    assert_eq!(Breaker::from_metadata(&Metadata::default()), Ok(None));
}
