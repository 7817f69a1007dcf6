//! The HTTP filter `ratelimit` and what its virtual host has it ask (Envoy, "Global rate limiting").

use std::time::Duration;

use http::StatusCode;
use pillion_wire::rate_limit::expression;
use pillion_wire::xds::core::{self, grpc_service};
use pillion_wire::xds::envoy_type::{HttpStatus, RateLimitUnit};
use pillion_wire::xds::http_rate_limit::RateLimit;
use pillion_wire::xds::http_rate_limit::rate_limit::XRateLimitHeadersRfcVersion;
use pillion_wire::xds::rate_limit_config::RateLimitServiceConfig;
use pillion_wire::xds::rate_limit_expr::{self, descriptor::ExprSpecifier};
use pillion_wire::xds::route::rate_limit::action::{ActionSpecifier, MaskedRemoteAddress};
use pillion_wire::xds::route::rate_limit::r#override::OverrideSpecifier;
use pillion_wire::xds::route::rate_limit::{Action, Override};
use pillion_wire::xds::route::{self as pb};
use pillion_wire::xds::{UInt32Value, type_url};

use super::at::{At, Reason, Refusal, duration, pass_over, refuse, unpack};
use super::{changes, matching};
use crate::config::{Descriptor, Entry, EntryValue, GlobalRateLimit, RATE_LIMIT_TIMEOUT};

/// What one request is asked about, at most.
const MOST_DESCRIPTORS: usize = 32;

/// A filter, before it is known what it asks.
#[derive(Debug)]
pub(super) struct Asked {
    limit: GlobalRateLimit,
    stage: u32,
}

/// Who is asked, and what becomes of requests.
pub(super) fn service(at: &At<'_>, filter: RateLimit) -> Result<Asked, Refusal> {
    refuse!(at, filter; filter_enabled, filter_enforced, failure_mode_deny_percent, rate_limits);
    // What is told beside the answer is for others; `Retry-After` is given in any case.
    pass_over!(at, filter; stat_prefix, metadata_namespace, enable_retry_after_header);
    if !matches!(filter.request_type.as_str(), "" | "both") {
        return Err(at.field("request_type").refuse(Reason::Unsupported));
    }
    let timeout = filter.timeout.map(|told| duration(&at.field("timeout"), told)).transpose()?;
    let timeout = timeout.unwrap_or(RATE_LIMIT_TIMEOUT);
    if timeout < Duration::from_millis(1) {
        return Err(at.field("timeout").invalid("has to be at least 1 ms"));
    }
    let on_error = status(&at.field("status_on_error"), filter.status_on_error)?;
    let limited = status(&at.field("rate_limited_status"), filter.rate_limited_status)?;
    let headers = &at.field("enable_x_ratelimit_headers");
    let headers = XRateLimitHeadersRfcVersion::try_from(filter.enable_x_ratelimit_headers)
        .map_err(|_unknown| headers.invalid("is not known"))?;
    let (none, add) = (Vec::new(), filter.response_headers_to_add);
    let answers = changes::both(at, (Vec::new(), Vec::new()), (add, none))?.response;
    let called = &at.field("rate_limit_service");
    let (cluster, authority) = called_service(called, called.required(filter.rate_limit_service)?)?;
    let limit = GlobalRateLimit {
        cluster,
        authority,
        domain: at.field("domain").filled(filter.domain)?,
        timeout,
        on_failure: filter.failure_mode_deny.then_some(on_error.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)),
        // As Envoy does with what is no error.
        status: limited.filter(|status| status.as_u16() >= 400).unwrap_or(StatusCode::TOO_MANY_REQUESTS),
        resource_exhausted: filter.rate_limited_as_resource_exhausted,
        tell_limits: headers == XRateLimitHeadersRfcVersion::DraftVersion03,
        tell_limited: !filter.disable_x_envoy_ratelimited_header,
        answers,
        descriptors: Vec::new(),
    };
    Ok(Asked { limit, stage: filter.stage })
}

/// A cluster, and what it is called in requests.
fn called_service(at: &At<'_>, config: RateLimitServiceConfig) -> Result<(String, String), Refusal> {
    if config.transport_api_version != i32::from(core::ApiVersion::V3) {
        return Err(at.field("transport_api_version").invalid("has to be V3"));
    }
    let at = &at.field("grpc_service");
    let service = at.required(config.grpc_service)?;
    refuse!(at, service; initial_metadata, retry_policy);
    pass_over!(at, service; timeout); // The filter's own is in force, as in Envoy.
    let Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)) = service.target_specifier else {
        return Err(at.field("envoy_grpc").refuse(Reason::Missing));
    };
    let at = &at.field("envoy_grpc");
    refuse!(at, grpc; retry_policy);
    pass_over!(at, grpc; max_receive_message_length, skip_envoy_headers);
    let cluster = at.field("cluster_name").filled(grpc.cluster_name)?;
    if http::HeaderValue::try_from(&grpc.authority).is_err() {
        return Err(at.field("authority").invalid("is no authority"));
    }
    let authority = if grpc.authority.is_empty() { cluster.clone() } else { grpc.authority };
    Ok((cluster, authority))
}

fn status(at: &At<'_>, told: Option<HttpStatus>) -> Result<Option<StatusCode>, Refusal> {
    let Some(told) = told else { return Ok(None) };
    let status = u16::try_from(told.code).ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status.map(Some).ok_or_else(|| at.field("code").invalid("is no final HTTP status"))
}

impl Asked {
    /// The same with what it asks: those `limits` that are of its stage.
    pub(super) fn about(self, at: &At<'_>, limits: Vec<pb::RateLimit>) -> Result<GlobalRateLimit, Refusal> {
        let Self { mut limit, stage } = self;
        for (index, told) in limits.into_iter().enumerate() {
            let at = &at.index(index);
            if told.stage.map_or(0, |stage| stage.value) == stage {
                limit.descriptors.push(descriptor(at, told)?);
            } else {
                at.passed_over();
            }
        }
        if limit.descriptors.len() > MOST_DESCRIPTORS {
            return Err(at.invalid("are more than 32"));
        }
        Ok(limit)
    }
}

fn descriptor(at: &At<'_>, told: pb::RateLimit) -> Result<Descriptor, Refusal> {
    refuse!(at, told; disable_key, apply_on_stream_done, x_ratelimit_option);
    let actions = &at.field("actions");
    if told.actions.is_empty() {
        return Err(actions.refuse(Reason::Missing));
    }
    let mut entries = Vec::with_capacity(told.actions.len());
    for (index, action) in told.actions.into_iter().enumerate() {
        entries.push(entry(&actions.index(index), action)?);
    }
    let limit = told.limit.map(|limit| own_limit(&at.field("limit"), limit)).transpose()?;
    let hits = told.hits_addend.map(|hits| {
        let at = &at.field("hits_addend");
        refuse!(at, hits; format, is_negative_hits);
        Ok(hits.number.map(|number| number.value))
    });
    Ok(Descriptor { entries, limit, hits: hits.transpose()?.flatten() })
}

fn own_limit(at: &At<'_>, limit: Override) -> Result<(u32, i32), Refusal> {
    match limit.override_specifier {
        Some(OverrideSpecifier::RateLimit(limit)) => match RateLimitUnit::try_from(limit.unit) {
            Ok(RateLimitUnit::Unknown) | Err(_) => Err(at.field("rate_limit").field("unit").invalid("is not known")),
            Ok(_) => Ok((limit.requests_per_unit, limit.unit)),
        },
        Some(OverrideSpecifier::DynamicMetadata(_)) => Err(at.field("dynamic_metadata").refuse(Reason::Unsupported)),
        None => Err(at.refuse(Reason::Missing)),
    }
}

fn entry(at: &At<'_>, action: Action) -> Result<Entry, Refusal> {
    let unsupported = |field: &'static str| Err(at.field(field).refuse(Reason::Unsupported));
    let or = |key: String, otherwise: &str| if key.is_empty() { otherwise.to_owned() } else { key };
    let (key, value, is_optional) = match at.required(action.action_specifier)? {
        ActionSpecifier::GenericKey(key) => {
            let at = &at.field("generic_key");
            refuse!(at, key; default_value);
            let value = at.field("descriptor_value").filled(key.descriptor_value)?;
            (or(key.descriptor_key, "generic_key"), EntryValue::Fixed(value), false)
        }
        ActionSpecifier::RemoteAddress(_) => ("remote_address".to_owned(), EntryValue::SourceAddress, false),
        ActionSpecifier::MaskedRemoteAddress(masked) => {
            ("masked_remote_address".to_owned(), network(&at.field("masked_remote_address"), &masked)?, false)
        }
        ActionSpecifier::RequestHeaders(headers) => {
            let at = &at.field("request_headers");
            let name = matching::header_name(&at.field("header_name"), &headers.header_name)?;
            let key = at.field("descriptor_key").filled(headers.descriptor_key)?;
            (key, EntryValue::Header(name), headers.skip_if_absent)
        }
        ActionSpecifier::HeaderValueMatch(matched) => {
            let at = &at.field("header_value_match");
            refuse!(at, matched; default_value);
            let expected = matched.expect_match.is_none_or(|expect| expect.value);
            let value = at.field("descriptor_value").filled(matched.descriptor_value)?;
            let places = &at.field("headers");
            let mut headers = Vec::with_capacity(matched.headers.len());
            for (index, header) in matched.headers.into_iter().enumerate() {
                headers.push(matching::header(&places.index(index), header)?);
            }
            if headers.is_empty() {
                return Err(places.refuse(Reason::Missing));
            }
            (or(matched.descriptor_key, "header_match"), EntryValue::HeaderMatch(value, headers, expected), false)
        }
        ActionSpecifier::Extension(extension) => {
            let at = &at.field("extension");
            let at = &at.field("typed_config");
            expression(at, unpack(at, type_url::RATE_LIMIT_EXPR, &at.required(extension.typed_config)?)?)?
        }
        ActionSpecifier::SourceCluster(_) => return unsupported("source_cluster"),
        ActionSpecifier::DestinationCluster(_) => return unsupported("destination_cluster"),
        ActionSpecifier::QueryParameters(_) => return unsupported("query_parameters"),
        ActionSpecifier::QueryParameterValueMatch(_) => return unsupported("query_parameter_value_match"),
        ActionSpecifier::Metadata(_) => return unsupported("metadata"),
        ActionSpecifier::RemoteAddressMatch(_) => return unsupported("remote_address_match"),
        #[expect(deprecated, reason = "refused as any metadata")]
        ActionSpecifier::DynamicMetadata(_) => return unsupported("dynamic_metadata"),
    };
    Ok(Entry { key, value, is_optional })
}

/// The few expressions that are known, word for word.
fn expression(at: &At<'_>, told: rate_limit_expr::Descriptor) -> Result<(String, EntryValue, bool), Refusal> {
    let value = match told.expr_specifier {
        Some(ExprSpecifier::Text(text)) => match text.as_str() {
            expression::CALLER => EntryValue::Caller,
            expression::PROVEN_CALLER => EntryValue::ProvenCaller,
            expression::PATH => EntryValue::Path,
            _ => return Err(at.field("text").refuse(Reason::Unsupported)),
        },
        Some(ExprSpecifier::Parsed(_)) => return Err(at.field("parsed").refuse(Reason::Unsupported)),
        None => return Err(at.field("text").refuse(Reason::Missing)),
    };
    Ok((at.field("descriptor_key").filled(told.descriptor_key)?, value, told.skip_if_error))
}

fn network(at: &At<'_>, masked: &MaskedRemoteAddress) -> Result<EntryValue, Refusal> {
    let bits = |field: &'static str, told: Option<UInt32Value>, most: u8| {
        let bits = told.map_or(Ok(most), |bits| u8::try_from(bits.value));
        bits.ok().filter(|bits| *bits <= most).ok_or_else(|| at.field(field).invalid("is longer than the address"))
    };
    let (v4, v6) = (masked.v4_prefix_mask_len, masked.v6_prefix_mask_len);
    Ok(EntryValue::SourceNetwork(bits("v4_prefix_mask_len", v4, 32)?, bits("v6_prefix_mask_len", v6, 128)?))
}

#[cfg(test)]
#[path = "rate_limit_tests.rs"]
mod tests;
