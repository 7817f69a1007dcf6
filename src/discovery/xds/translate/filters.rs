//! HTTP filters of connection managers, and what they do on routes (gRFC A39).
//!
//! An unknown filter is refused unless it is optional; so is what a route says to one.

use std::collections::HashMap;

use http::{HeaderValue, StatusCode};
use pillion_wire::load_shedding::Gradient;
use pillion_wire::xds::common_fault::fault_delay::FaultDelaySecifier;
use pillion_wire::xds::envoy_type::FractionalPercent;
use pillion_wire::xds::envoy_type::fractional_percent::DenominatorType;
use pillion_wire::xds::hcm::{HttpFilter as PbFilter, http_filter};
use pillion_wire::xds::http_cors::{Cors as PbCors, CorsPolicy};
use pillion_wire::xds::http_fault::{HttpFault, fault_abort::ErrorType};
use pillion_wire::xds::route::FilterConfig;
use pillion_wire::xds::router::Router;
use pillion_wire::xds::{Any, type_url};

use super::at::{At, Reason, Refusal, duration, pass_over, refuse, unpack};
use super::{load_shedding, matching, rate_limit, session};
use crate::config::{Abort, Cors, Fault, HttpFilter, Override, PerMillion};

/// The router has to be there, and last. What stands before it is ours, or optional.
pub(super) fn outbound(at: &At<'_>, filters: Vec<PbFilter>) -> Result<Vec<HttpFilter>, Refusal> {
    let mut known = Vec::new();
    for (index, filter) in before_router(at, filters)?.into_iter().enumerate() {
        let at = &at.index(index);
        let (name, disabled) = (filter.name, filter.disabled);
        match filter.config_type {
            Some(http_filter::ConfigType::TypedConfig(config)) if config.type_url == type_url::CORS => {
                let _nothing: PbCors = unpack(at, type_url::CORS, &config)?;
                known.push(HttpFilter::Cors { name: at.field("name").filled(name)? });
            }
            Some(http_filter::ConfigType::TypedConfig(config)) if config.type_url == type_url::FAULT => {
                let at = &at.field("typed_config");
                let fault = fault(at, unpack(at, type_url::FAULT, &config)?)?;
                let otherwise = Some(fault).filter(|fault| !disabled && *fault != Fault::default());
                known.push(HttpFilter::Fault { name, otherwise });
            }
            Some(http_filter::ConfigType::TypedConfig(config)) if config.type_url == type_url::STATEFUL_SESSION => {
                let at = &at.field("typed_config");
                let told = session::session(at, unpack(at, type_url::STATEFUL_SESSION, &config)?)?;
                known.push(HttpFilter::Session { name, otherwise: told.filter(|_| !disabled) });
            }
            _ if filter.is_optional || disabled => at.passed_over(),
            _ => return Err(at.refuse(Reason::Unsupported)),
        }
    }
    Ok(known)
}

/// The same where nothing but the router, rate limits and a limit that is found have a meaning for us.
pub(super) fn inbound(
    at: &At<'_>,
    filters: Vec<PbFilter>,
) -> Result<(Option<rate_limit::Asked>, Option<Gradient>), Refusal> {
    let (mut asked, mut found) = (None, None);
    for (index, filter) in before_router(at, filters)?.into_iter().enumerate() {
        let at = &at.index(index);
        match filter.config_type {
            _ if filter.disabled => at.passed_over(),
            Some(http_filter::ConfigType::TypedConfig(config))
                if config.type_url == type_url::RATE_LIMIT && asked.is_none() =>
            {
                let at = &at.field("typed_config");
                asked = Some(rate_limit::service(at, unpack(at, type_url::RATE_LIMIT, &config)?)?);
            }
            Some(http_filter::ConfigType::TypedConfig(config)) if config.type_url == type_url::ADAPTIVE_CONCURRENCY => {
                if found.is_some() {
                    return Err(at.invalid("is the second one of its kind"));
                }
                let at = &at.field("typed_config");
                found = Some(load_shedding::gradient(at, unpack(at, type_url::ADAPTIVE_CONCURRENCY, &config)?)?);
            }
            _ if filter.is_optional => at.passed_over(),
            _ => return Err(at.refuse(Reason::Unsupported)),
        }
    }
    Ok((asked, found.flatten()))
}

fn before_router(at: &At<'_>, mut filters: Vec<PbFilter>) -> Result<Vec<PbFilter>, Refusal> {
    let last = filters.pop().ok_or_else(|| at.refuse(Reason::Missing))?;
    let at = &at.index(filters.len());
    match last.config_type {
        Some(http_filter::ConfigType::TypedConfig(config)) if config.type_url == type_url::ROUTER && !last.disabled => {
            router(at, &unpack(at, type_url::ROUTER, &config)?)?;
        }
        _ => return Err(at.invalid("has to be the router")),
    }
    Ok(filters)
}

fn router(at: &At<'_>, router: &Router) -> Result<(), Refusal> {
    refuse!(at, router;
        upstream_log, strict_check_headers, upstream_http_filters, respect_expected_rq_timeout,
        reject_connect_request_early_data);
    pass_over!(at, router;
        dynamic_stats, suppress_envoy_headers, suppress_grpc_request_failure_code_stats);
    Ok(())
}

/// `typed_per_filter_config`, which goes before `inherited`.
pub(super) fn overrides(
    at: &At<'_>,
    configs: HashMap<String, Any>,
    inherited: &[(String, Override)],
) -> Result<Vec<(String, Override)>, Refusal> {
    let mut all = Vec::new();
    for (name, config) in configs {
        all.extend(override_of(at, &config)?.map(|said| (name, said)));
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let rest: Vec<_> = inherited.iter().filter(|(name, _)| all.iter().all(|(own, _)| own != name)).cloned().collect();
    all.extend(rest);
    Ok(all)
}

fn override_of(at: &At<'_>, config: &Any) -> Result<Option<Override>, Refusal> {
    if config.type_url != type_url::FILTER_CONFIG {
        return known(at, config)?.map(Some).ok_or_else(|| at.refuse(Reason::Unsupported));
    }
    let wrapper: FilterConfig = unpack(at, type_url::FILTER_CONFIG, config)?;
    if wrapper.disabled {
        return Ok(Some(Override::Disabled));
    }
    let at = &at.field("config");
    match known(at, &at.required(wrapper.config)?)? {
        None if !wrapper.is_optional => Err(at.refuse(Reason::Unsupported)),
        said => Ok(said),
    }
}

fn known(at: &At<'_>, config: &Any) -> Result<Option<Override>, Refusal> {
    match config.type_url.as_str() {
        type_url::CORS_POLICY => cors(at, unpack(at, type_url::CORS_POLICY, config)?).map(Override::Cors).map(Some),
        type_url::FAULT => fault(at, unpack(at, type_url::FAULT, config)?).map(Override::Fault).map(Some),
        type_url::STATEFUL_SESSION_PER_ROUTE => {
            session::on_route(at, unpack(at, type_url::STATEFUL_SESSION_PER_ROUTE, config)?).map(Some)
        }
        _ => Ok(None),
    }
}

fn fault(at: &At<'_>, fault: HttpFault) -> Result<Fault, Refusal> {
    refuse!(at, fault; upstream_cluster, downstream_nodes, response_rate_limit);
    pass_over!(at, fault;
        delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
        max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
        disable_downstream_cluster_stats, filter_metadata);
    let mut headers = Vec::with_capacity(fault.headers.len());
    let places = &at.field("headers");
    for (index, header) in fault.headers.into_iter().enumerate() {
        headers.push(matching::header(&places.index(index), header)?);
    }
    let delay = fault.delay.map(|delay| {
        let at = &at.field("delay");
        let share = share(&at.field("percentage"), delay.percentage)?.unwrap_or(PerMillion(0));
        match at.field("fixed_delay").required(delay.fault_delay_secifier)? {
            FaultDelaySecifier::FixedDelay(fixed) => Ok((duration(&at.field("fixed_delay"), fixed)?, share)),
            FaultDelaySecifier::HeaderDelay(_) => Err(at.field("header_delay").refuse(Reason::Unsupported)),
        }
    });
    let abort = fault.abort.map(|abort| {
        let at = &at.field("abort");
        refuse!(at, abort; response_body);
        let share = share(&at.field("percentage"), abort.percentage)?.unwrap_or(PerMillion(0));
        Ok((self::abort(at, at.required(abort.error_type)?)?, share))
    });
    Ok(Fault {
        delay: delay.transpose()?,
        abort: abort.transpose()?,
        headers,
        max_active: fault.max_active_faults.map(|max| max.value),
    })
}

fn abort(at: &At<'_>, error: ErrorType) -> Result<Abort, Refusal> {
    match error {
        ErrorType::HttpStatus(status) => {
            let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
            let status = status.and_then(|status| StatusCode::from_u16(status).ok());
            status.map(Abort::Http).ok_or_else(|| at.field("http_status").invalid("is no final HTTP status"))
        }
        ErrorType::GrpcStatus(status) => {
            let status = u8::try_from(status).ok().filter(|status| *status <= 16);
            status.map(Abort::Grpc).ok_or_else(|| at.field("grpc_status").invalid("is no status of gRPC"))
        }
        ErrorType::HeaderAbort(_) => Err(at.field("header_abort").refuse(Reason::Unsupported)),
    }
}

fn cors(at: &At<'_>, policy: CorsPolicy) -> Result<Cors, Refusal> {
    refuse!(at, policy; filter_enabled, shadow_enabled, allow_private_network_access);
    let places = &at.field("allow_origin_string_match");
    let mut origins = Vec::with_capacity(policy.allow_origin_string_match.len());
    for (index, matcher) in policy.allow_origin_string_match.into_iter().enumerate() {
        origins.push(matching::string(&places.index(index), matcher)?);
    }
    let value = |field: &'static str, text: String| {
        let value = HeaderValue::try_from(text).map_err(|_cause| at.field(field).invalid("is no value of a field"))?;
        Ok(Some(value).filter(|value| !value.is_empty()))
    };
    Ok(Cors {
        origins,
        methods: value("allow_methods", policy.allow_methods)?,
        headers: value("allow_headers", policy.allow_headers)?,
        exposed: value("expose_headers", policy.expose_headers)?,
        max_age: value("max_age", policy.max_age)?,
        credentials: policy.allow_credentials.is_some_and(|allow| allow.value),
        forward_others: policy.forward_not_matching_preflights.is_none_or(|forward| forward.value),
    })
}

/// A part of all requests.
pub(super) fn share(at: &At<'_>, percent: Option<FractionalPercent>) -> Result<Option<PerMillion>, Refusal> {
    let Some(percent) = percent else { return Ok(None) };
    let each = match DenominatorType::try_from(percent.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_unknown) => return Err(at.field("denominator").invalid("is not known")),
    };
    // More than all is all (Envoy `FractionalPercent`).
    Ok(Some(PerMillion(percent.numerator.saturating_mul(each).min(PerMillion::ALL.0))))
}
