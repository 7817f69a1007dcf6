use pillion_wire::xds::core::{GrpcService, HeaderValue, HeaderValueOption, TypedExtensionConfig};
use pillion_wire::xds::pack;
use pillion_wire::xds::rate_limit_expr;
use pillion_wire::xds::route::rate_limit::action::{
    GenericKey, HeaderValueMatch, QueryParameters, RemoteAddress, RequestHeaders,
};
use pillion_wire::xds::route::rate_limit::{HitsAddend, r#override};
use pillion_wire::xds::{Duration as PbDuration, UInt64Value};

use super::*;

fn filter() -> RateLimit {
    let grpc = grpc_service::EnvoyGrpc { cluster_name: "limits.shop:80".into(), ..Default::default() };
    RateLimit {
        domain: "shop".into(),
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(GrpcService {
                target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
                ..GrpcService::default()
            }),
            transport_api_version: core::ApiVersion::V3.into(),
        }),
        ..RateLimit::default()
    }
}

fn actions(actions: Vec<ActionSpecifier>) -> pb::RateLimit {
    let action = |action| Action { action_specifier: Some(action) };
    pb::RateLimit { actions: actions.into_iter().map(action).collect(), ..pb::RateLimit::default() }
}

fn expression_of(text: &str) -> ActionSpecifier {
    let told = rate_limit_expr::Descriptor {
        descriptor_key: "k".into(),
        skip_if_error: false,
        expr_specifier: Some(ExprSpecifier::Text(text.into())),
    };
    ActionSpecifier::Extension(TypedExtensionConfig {
        name: "envoy.rate_limit_descriptors.expr".into(),
        typed_config: Some(pack(type_url::RATE_LIMIT_EXPR, &told)),
    })
}

fn fixed(key: &str, value: &str) -> ActionSpecifier {
    let (descriptor_key, descriptor_value) = (key.into(), value.into());
    ActionSpecifier::GenericKey(GenericKey { descriptor_value, descriptor_key, default_value: String::new() })
}

fn read(filter: RateLimit, limits: Vec<pb::RateLimit>) -> Result<GlobalRateLimit, String> {
    let asked = service(&At::ROOT.field("f"), filter);
    asked.and_then(|asked| asked.about(&At::ROOT.field("r"), limits)).map_err(|refusal| refusal.to_string())
}

#[test]
fn the_defaults_are_those_of_envoy() {
    let limit = read(filter(), Vec::new()).expect("valid");
    assert_eq!((limit.cluster.as_str(), limit.authority.as_str()), ("limits.shop:80", "limits.shop:80"));
    assert_eq!((limit.timeout, limit.on_failure), (Duration::from_millis(20), None));
    assert_eq!((limit.status, limit.resource_exhausted), (StatusCode::TOO_MANY_REQUESTS, false));
    assert_eq!((limit.tell_limits, limit.tell_limited, limit.descriptors.len()), (false, true, 0));
    let denies = RateLimit { failure_mode_deny: true, ..filter() };
    assert_eq!(read(denies, Vec::new()).expect("valid").on_failure, Some(StatusCode::INTERNAL_SERVER_ERROR));
    let told = RateLimit {
        failure_mode_deny: true,
        status_on_error: Some(HttpStatus { code: 503 }),
        rate_limited_status: Some(HttpStatus { code: 200 }),
        ..filter()
    };
    let told = read(told, Vec::new()).expect("valid");
    assert_eq!(told.on_failure, Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(told.status, StatusCode::TOO_MANY_REQUESTS, "what is no error is not taken for one");
}

#[test]
fn actions_become_entries_and_other_stages_are_others() {
    let header = ActionSpecifier::RequestHeaders(RequestHeaders {
        header_name: ":method".into(),
        descriptor_key: "m".into(),
        skip_if_absent: true,
    });
    let masked = ActionSpecifier::MaskedRemoteAddress(MaskedRemoteAddress {
        v4_prefix_mask_len: Some(UInt32Value { value: 24 }),
        v6_prefix_mask_len: None,
    });
    let mut first = actions(vec![
        fixed("", "v"),
        ActionSpecifier::RemoteAddress(RemoteAddress {}),
        masked,
        header,
        expression_of(expression::CALLER),
        expression_of(expression::PROVEN_CALLER),
        expression_of(expression::PATH),
    ]);
    first.hits_addend =
        Some(HitsAddend { number: Some(UInt64Value { value: 3 }), format: String::new(), is_negative_hits: false });
    first.limit = Some(Override {
        override_specifier: Some(OverrideSpecifier::RateLimit(r#override::RateLimitOverride {
            requests_per_unit: 9,
            unit: RateLimitUnit::Minute.into(),
        })),
    });
    let other = pb::RateLimit { stage: Some(UInt32Value { value: 1 }), ..pb::RateLimit::default() };
    let limit = read(filter(), vec![first.clone(), other]).expect("valid");
    let [descriptor] = limit.descriptors.as_slice() else { panic!("one of the stage") };
    assert_eq!((descriptor.hits, descriptor.limit), (Some(3), Some((9, RateLimitUnit::Minute.into()))));
    let found: Vec<_> = descriptor.entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
    assert_eq!(
        found,
        [
            ("generic_key", &EntryValue::Fixed("v".into())),
            ("remote_address", &EntryValue::SourceAddress),
            ("masked_remote_address", &EntryValue::SourceNetwork(24, 128)),
            ("m", &EntryValue::Header(crate::config::HeaderName::Method)),
            ("k", &EntryValue::Caller),
            ("k", &EntryValue::ProvenCaller),
            ("k", &EntryValue::Path),
        ]
    );
    let optional: Vec<_> = descriptor.entries.iter().filter(|entry| entry.is_optional).collect();
    assert_eq!(optional.len(), 1, "{optional:?}");
    assert_eq!(read(RateLimit { stage: 1, ..filter() }, vec![first]).expect("valid").descriptors, []);
}

#[test]
fn what_is_not_supported_is_refused_by_its_path() {
    let query = ActionSpecifier::QueryParameters(QueryParameters::default());
    let nothing = HeaderValueMatch { descriptor_value: "v".into(), ..HeaderValueMatch::default() };
    let google = GrpcService::default();
    let config = |service| RateLimitServiceConfig {
        grpc_service: Some(service),
        transport_api_version: core::ApiVersion::V3.into(),
    };
    let header = |key: &str, value: &str| HeaderValueOption {
        header: Some(HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() }),
        ..HeaderValueOption::default()
    };
    for (filter, path) in [
        (RateLimit { domain: String::new(), ..filter() }, "f.domain: is missing"),
        (RateLimit { request_type: "internal".into(), ..filter() }, "f.request_type: is not supported"),
        (RateLimit { timeout: Some(PbDuration::default()), ..filter() }, "f.timeout: has to be"),
        (RateLimit { filter_enabled: Some(Default::default()), ..filter() }, "f.filter_enabled: is not supported"),
        (RateLimit { rate_limits: vec![Default::default()], ..filter() }, "f.rate_limits: is not supported"),
        (RateLimit { rate_limit_service: None, ..filter() }, "f.rate_limit_service: is missing"),
        (
            RateLimit { rate_limit_service: Some(config(google)), ..filter() },
            "f.rate_limit_service.grpc_service.envoy_grpc: is missing",
        ),
        (
            RateLimit { response_headers_to_add: vec![header("connection", "x")], ..filter() },
            "f.response_headers_to_add[0].header.key",
        ),
        (RateLimit { enable_x_ratelimit_headers: 7, ..filter() }, "f.enable_x_ratelimit_headers: is not known"),
        (RateLimit { status_on_error: Some(HttpStatus { code: 99 }), ..filter() }, "f.status_on_error.code: is no"),
    ] {
        let error = read(filter, Vec::new()).expect_err(path);
        assert!(error.starts_with(path), "{error}");
    }
    let disabled = pb::RateLimit { disable_key: "d".into(), ..actions(vec![fixed("k", "v")]) };
    let metadata = Override { override_specifier: Some(OverrideSpecifier::DynamicMetadata(Default::default())) };
    let metadata = pb::RateLimit { limit: Some(metadata), ..actions(vec![fixed("k", "v")]) };
    for (limit, path) in [
        (actions(Vec::new()), "r[0].actions: is missing"),
        (actions(vec![fixed("k", "v"), query]), "r[0].actions[1].query_parameters: is not supported"),
        (actions(vec![fixed("k", "")]), "r[0].actions[0].generic_key.descriptor_value: is missing"),
        (actions(vec![ActionSpecifier::HeaderValueMatch(nothing)]), "r[0].actions[0].header_value_match.headers"),
        (actions(vec![expression_of("request.size")]), "r[0].actions[0].extension.typed_config.text: is not supported"),
        (disabled, "r[0].disable_key: is not supported"),
        (metadata, "r[0].limit.dynamic_metadata: is not supported"),
    ] {
        let error = read(filter(), vec![limit]).expect_err(path);
        assert!(error.starts_with(path), "{error}");
    }
}
