//! Limits that a rate-limit service counts: Envoy's HTTP filter `ratelimit`, and what it asks for a virtual host.

use pillion_wire::{
    rate_limit::expression,
    xds::{
        UInt64Value,
        core::{ApiVersion, GrpcService, TypedExtensionConfig, grpc_service},
        envoy_type::RateLimitUnit,
        hcm::HttpFilter,
        http_rate_limit::{self, rate_limit::XRateLimitHeadersRfcVersion},
        pack,
        rate_limit_config::RateLimitServiceConfig,
        rate_limit_expr::{self, descriptor::ExprSpecifier},
        route::{
            RateLimit,
            rate_limit::{
                Action, HitsAddend, Override,
                action::{ActionSpecifier, GenericKey, RemoteAddress, RequestHeaders},
                r#override::{OverrideSpecifier, RateLimitOverride},
            },
        },
        type_url,
    },
};

use super::{duration, http_filters::filter};
use crate::core::policy::{Descriptor, Entry, GlobalRateLimit, Unit, Value};

/// The filter: who is asked, and what becomes of requests.
pub(super) fn asking(limit: &GlobalRateLimit) -> HttpFilter {
    let grpc = grpc_service::EnvoyGrpc {
        cluster_name: limit.service.to_string(),
        authority: limit.service.to_string(),
        ..grpc_service::EnvoyGrpc::default()
    };
    let headers =
        if limit.tell_limits { XRateLimitHeadersRfcVersion::DraftVersion03 } else { XRateLimitHeadersRfcVersion::Off };
    let config = http_rate_limit::RateLimit {
        domain: limit.domain.clone(),
        timeout: Some(duration(limit.timeout)),
        failure_mode_deny: limit.deny_on_failure,
        rate_limited_as_resource_exhausted: true,
        enable_x_ratelimit_headers: headers.into(),
        enable_retry_after_header: true, // Our sidecar gives it in any case.
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(GrpcService {
                target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
                ..GrpcService::default()
            }),
            transport_api_version: ApiVersion::V3.into(),
        }),
        ..http_rate_limit::RateLimit::default()
    };
    filter("envoy.filters.http.ratelimit", pack(type_url::RATE_LIMIT, &config))
}

/// What it asks.
pub(super) fn questions(limit: &GlobalRateLimit) -> Vec<RateLimit> {
    limit.descriptors.iter().map(question).collect()
}

fn question(descriptor: &Descriptor) -> RateLimit {
    let limit = descriptor.limit.map(|(requests_per_unit, unit)| Override {
        override_specifier: Some(OverrideSpecifier::RateLimit(RateLimitOverride {
            requests_per_unit,
            unit: unit_of(unit).into(),
        })),
    });
    let hits = |value| HitsAddend { number: Some(UInt64Value { value }), ..HitsAddend::default() };
    RateLimit {
        actions: descriptor.entries.iter().map(|entry| Action { action_specifier: Some(action(entry)) }).collect(),
        limit,
        hits_addend: descriptor.hits.map(hits),
        ..RateLimit::default()
    }
}

fn action(entry: &Entry) -> ActionSpecifier {
    let descriptor_key = entry.key.clone();
    let header = |header_name: &str| {
        ActionSpecifier::RequestHeaders(RequestHeaders {
            header_name: header_name.to_owned(),
            descriptor_key: entry.key.clone(),
            skip_if_absent: false,
        })
    };
    match &entry.value {
        Value::Fixed(value) => ActionSpecifier::GenericKey(GenericKey {
            descriptor_value: value.clone(),
            descriptor_key,
            ..GenericKey::default()
        }),
        Value::SourceAddress => ActionSpecifier::RemoteAddress(RemoteAddress {}),
        Value::Method => header(":method"),
        Value::Header(name) => header(name),
        Value::Caller => evaluated(descriptor_key, expression::CALLER),
        Value::Path => evaluated(descriptor_key, expression::PATH),
    }
}

fn evaluated(descriptor_key: String, text: &str) -> ActionSpecifier {
    let descriptor = rate_limit_expr::Descriptor {
        descriptor_key,
        skip_if_error: false,
        expr_specifier: Some(ExprSpecifier::Text(text.to_owned())),
    };
    ActionSpecifier::Extension(TypedExtensionConfig {
        name: "envoy.rate_limit_descriptors.expr".to_owned(),
        typed_config: Some(pack(type_url::RATE_LIMIT_EXPR, &descriptor)),
    })
}

fn unit_of(unit: Unit) -> RateLimitUnit {
    match unit {
        Unit::Second => RateLimitUnit::Second,
        Unit::Minute => RateLimitUnit::Minute,
        Unit::Hour => RateLimitUnit::Hour,
        Unit::Day => RateLimitUnit::Day,
    }
}
