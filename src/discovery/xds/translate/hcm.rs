//! `HttpConnectionManager`: where the routes are, and which filters there are.

use pillion_wire::load_shedding::Gradient;
use pillion_wire::xds::hcm::HttpConnectionManager;
use pillion_wire::xds::hcm::http_connection_manager::{CodecType, RouteSpecifier};
use pillion_wire::xds::route::route::Action;
use pillion_wire::xds::route::route_match::PathSpecifier;
use pillion_wire::xds::route::{self as pb, RouteMatch};

use super::at::{At, Reason, Refusal, from_ads, is_set, pass_over, refuse};
use super::{cluster, filters, rate_limit, route};
use crate::config::{Age, AppProtocol, GlobalRateLimit, HttpFilter, RouteSource};

/// Outbound: the routes, and the filters before them.
pub(super) fn outbound(at: &At<'_>, manager: HttpConnectionManager) -> Result<(RouteSource, Vec<HttpFilter>), Refusal> {
    refuse_extras(at, &manager)?;
    refuse!(at, manager; common_http_protocol_options);
    let filters = filters::outbound(&at.field("http_filters"), manager.http_filters)?;
    let source = match at.field("rds").required(manager.route_specifier)? {
        RouteSpecifier::Rds(rds) => {
            let at = &at.field("rds");
            from_ads(&at.field("config_source"), rds.config_source.as_ref())?;
            at.field("route_config_name").filled(rds.route_config_name).map(RouteSource::Named)
        }
        RouteSpecifier::RouteConfig(config) => {
            route::configuration(&at.field("route_config"), config).map(RouteSource::Inline)
        }
        RouteSpecifier::ScopedRoutes(_) => Err(at.field("scoped_routes").refuse(Reason::Unsupported)),
    };
    Ok((source?, filters))
}

/// What is said of a port of our application.
#[derive(Debug)]
pub(super) struct Inbound {
    /// What it speaks.
    pub(super) protocol: AppProtocol,
    /// How old connections become.
    pub(super) age: Option<Age>,
    /// Who is asked about requests.
    pub(super) global: Option<GlobalRateLimit>,
    /// When it takes no more of them.
    pub(super) gradient: Option<Gradient>,
}

impl Inbound {
    /// No more than what it speaks.
    pub(super) fn plain(protocol: AppProtocol) -> Self {
        Self { protocol, age: None, global: None, gradient: None }
    }
}

/// Inbound. Its routes have to let everything through.
pub(super) fn inbound(at: &At<'_>, manager: HttpConnectionManager) -> Result<Inbound, Refusal> {
    refuse_extras(at, &manager)?;
    let age = match &manager.common_http_protocol_options {
        Some(common) => {
            let at = &at.field("common_http_protocol_options");
            refuse!(at, common;
                idle_timeout, max_headers_count, max_response_headers_kb, max_stream_duration,
                headers_with_underscores_action, max_requests_per_connection);
            cluster::age(at, common)?
        }
        None => None,
    };
    let protocol = match manager.codec_type() {
        CodecType::Auto => AppProtocol::Auto,
        CodecType::Http1 => AppProtocol::Http1,
        CodecType::Http2 => AppProtocol::Http2,
        CodecType::Http3 => return Err(at.field("codec_type").refuse(Reason::Unsupported)),
    };
    let (asked, gradient) = filters::inbound(&at.field("http_filters"), manager.http_filters)?;
    let global = match manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(config)) => passes_all(&at.field("route_config"), config, asked)?,
        Some(RouteSpecifier::Rds(_)) => return Err(at.field("rds").refuse(Reason::Unsupported)),
        Some(RouteSpecifier::ScopedRoutes(_)) => return Err(at.field("scoped_routes").refuse(Reason::Unsupported)),
        None => None,
    };
    Ok(Inbound { protocol, age, global, gradient })
}

fn refuse_extras(at: &At<'_>, manager: &HttpConnectionManager) -> Result<(), Refusal> {
    refuse!(at, manager;
        add_user_agent, http3_protocol_options, scheme_header_transformation,
        max_request_headers_kb, stream_idle_timeout, stream_flush_timeout, request_timeout, request_headers_timeout,
        drain_timeout, access_log, xff_num_trusted_hops, original_ip_detection_extensions,
        early_header_mutation_extensions, skip_xff_append, via, preserve_external_request_id,
        forward_client_cert_details, merge_slashes, path_with_escaped_slashes_action, request_id_extension,
        local_reply_config, strip_matching_host_port, strip_trailing_host_dot, strip_port_mode,
        path_normalization_options, typed_header_validation_config, append_x_forwarded_port,
        add_proxy_protocol_connection_state, forward_proto_config, server_header_transformation);
    pass_over!(at, manager;
        stat_prefix, tracing, http_protocol_options, http2_protocol_options, server_name, delayed_close_timeout,
        use_remote_address, internal_address_config, generate_request_id, always_set_request_id_in_response,
        proxy_100_continue, upgrade_configs, normalize_path, stream_error_on_invalid_http_message,
        proxy_status_config, append_local_overload, access_log_options);
    Ok(())
}

/// `prefix: ""` with `non_forwarding_action`, and nothing else but what the rate-limit service is asked.
fn passes_all(
    at: &At<'_>,
    config: pb::RouteConfiguration,
    asked: Option<rate_limit::Asked>,
) -> Result<Option<GlobalRateLimit>, Refusal> {
    let everything = RouteMatch { path_specifier: Some(PathSpecifier::Prefix(String::new())), ..RouteMatch::default() };
    let hosts = &at.field("virtual_hosts");
    let mut hosts_in = config.virtual_hosts.into_iter();
    let host = hosts.required(hosts_in.next())?;
    if hosts_in.next().is_some() {
        return Err(hosts.index(1).refuse(Reason::Unsupported));
    }
    let at = &hosts.index(0);
    refuse!(at, host; cors, typed_per_filter_config, require_tls, matcher);
    let limits = &at.field("rate_limits");
    if asked.is_none() && is_set(&host.rate_limits) {
        limits.passed_over(); // As in Envoy, they mean nothing without the filter.
    }
    let global = asked.map(|asked| asked.about(limits, host.rate_limits)).transpose()?;
    if host.domains != ["*"] {
        return Err(at.field("domains").invalid("has to be [\"*\"]"));
    }
    let routes = &at.field("routes");
    let at = &routes.index(0);
    let route = at.required(host.routes.into_iter().next())?;
    refuse!(at, route; typed_per_filter_config);
    let all = route.r#match.is_some_and(|rule| {
        rule == everything
            || rule.path_specifier == Some(PathSpecifier::Prefix("/".to_owned()))
                && !is_set(&rule.headers)
                && !is_set(&rule.query_parameters)
    });
    match route.action {
        Some(Action::NonForwardingAction(_)) if all => Ok(global),
        _ => Err(at.invalid("has to match everything, with a non_forwarding_action")),
    }
}
