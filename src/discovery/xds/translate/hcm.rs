//! `HttpConnectionManager`: where the routes are, and which filters there are.

use pillion_wire::load_shedding::Gradient;
use pillion_wire::xds::hcm::HttpConnectionManager;
use pillion_wire::xds::hcm::http_connection_manager::{CodecType, RouteSpecifier};
use pillion_wire::xds::route::route::Action;
use pillion_wire::xds::route::route_match::PathSpecifier;
use pillion_wire::xds::route::{self as pb, RouteMatch};

use super::at::{At, Reason, Refusal, from_ads, is_set, pass_over, refuse};
use super::{filters, route};
use crate::config::{AppProtocol, HttpFilter, RouteSource};

/// Outbound: the routes, and the filters before them.
pub(super) fn outbound(at: &At<'_>, manager: HttpConnectionManager) -> Result<(RouteSource, Vec<HttpFilter>), Refusal> {
    refuse_extras(at, &manager)?;
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

/// Inbound: what the application speaks, and when it takes no more requests. Its routes have to let everything through.
pub(super) fn inbound(at: &At<'_>, manager: HttpConnectionManager) -> Result<(AppProtocol, Option<Gradient>), Refusal> {
    refuse_extras(at, &manager)?;
    let protocol = match manager.codec_type() {
        CodecType::Auto => AppProtocol::Auto,
        CodecType::Http1 => AppProtocol::Http1,
        CodecType::Http2 => AppProtocol::Http2,
        CodecType::Http3 => return Err(at.field("codec_type").refuse(Reason::Unsupported)),
    };
    let gradient = filters::inbound(&at.field("http_filters"), manager.http_filters)?;
    match manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(config)) => passes_all(&at.field("route_config"), config)?,
        Some(RouteSpecifier::Rds(_)) => return Err(at.field("rds").refuse(Reason::Unsupported)),
        Some(RouteSpecifier::ScopedRoutes(_)) => return Err(at.field("scoped_routes").refuse(Reason::Unsupported)),
        None => {}
    }
    Ok((protocol, gradient))
}

fn refuse_extras(at: &At<'_>, manager: &HttpConnectionManager) -> Result<(), Refusal> {
    refuse!(at, manager;
        add_user_agent, common_http_protocol_options, http3_protocol_options, scheme_header_transformation,
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

/// `prefix: ""` with `non_forwarding_action`, and nothing else.
fn passes_all(at: &At<'_>, config: pb::RouteConfiguration) -> Result<(), Refusal> {
    let everything = RouteMatch { path_specifier: Some(PathSpecifier::Prefix(String::new())), ..RouteMatch::default() };
    let hosts = &at.field("virtual_hosts");
    let mut hosts_in = config.virtual_hosts.into_iter();
    let host = hosts.required(hosts_in.next())?;
    if hosts_in.next().is_some() {
        return Err(hosts.index(1).refuse(Reason::Unsupported));
    }
    let at = &hosts.index(0);
    refuse!(at, host; rate_limits, cors, typed_per_filter_config, require_tls, matcher);
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
        Some(Action::NonForwardingAction(_)) if all => Ok(()),
        _ => Err(at.invalid("has to match everything, with a non_forwarding_action")),
    }
}
