//! `Cluster` of a Service port.

use std::collections::{BTreeSet, HashMap};

use pillion_wire::{
    spiffe::{SpiffeId, TrustDomain},
    xds::{
        Any,
        cluster::{Cluster, cluster},
        core::{
            ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions, SelfConfigSource, TransportSocket, config_source,
            transport_socket,
        },
        matcher::{StringMatcher, string_matcher},
        pack,
        tls::{
            CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, SdsSecretConfig,
            SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext, common_tls_context, subject_alt_name_matcher,
            tls_parameters,
        },
        type_url,
        upstream_http::{HttpProtocolOptions, http_protocol_options},
    },
};

use super::{ads, balancing, connections, duration, health, names, resilience, treatment};
use crate::{
    core::{protocol::Protocol, view::PortView},
    xds::dialect::Dialect,
};

/// How long a connection to an endpoint may take, if no policy says.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// The certificate provider that gRPC clients of the mesh configure.
const GRPC_PROVIDER: &str = "default";
/// The static secret that holds an Envoy's own certificate.
const ENVOY_CERTIFICATE: &str = "pillion-workload";
/// The static secret that holds the mesh root for Envoy.
const ENVOY_ROOT: &str = "pillion-root";

/// The cluster of `view`.
pub(crate) fn cluster(view: &PortView, dialect: Dialect, trust_domain: &TrustDomain) -> Cluster {
    let name = view.key.to_string();
    let secured = dialect != Dialect::Pillion && view.in_mesh();
    let connect = view.policy.timeouts.as_ref().and_then(|timeouts| timeouts.connect).unwrap_or(CONNECT_TIMEOUT);
    let mut cluster = Cluster {
        name: name.clone(),
        connect_timeout: Some(duration(connect)),
        lb_policy: cluster::LbPolicy::RoundRobin.into(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into())),
        eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: Some(ads()), service_name: name }),
        typed_extension_protocol_options: protocol_options(view, dialect, secured),
        transport_socket: secured.then(|| transport_socket(view, dialect, trust_domain)),
        circuit_breakers: resilience::circuit_breakers(&view.policy, dialect),
        outlier_detection: resilience::outlier_detection(&view.policy, dialect),
        metadata: resilience::metadata(&view.policy, dialect),
        lrs_server: (dialect == Dialect::Grpc).then(own_server),
        ..Cluster::default()
    };
    if let Some(external) = &view.external {
        names::apply(&mut cluster, external, dialect);
    }
    balancing::apply(&mut cluster, view.policy.load_balancing.as_ref(), dialect);
    health::apply(&mut cluster, view, dialect, secured);
    treatment::budget(cluster, view, dialect)
}

/// Load reports of gRPC's clients go where the cluster came from (gRPC reports no others).
fn own_server() -> ConfigSource {
    let itself = config_source::ConfigSourceSpecifier::Self_(SelfConfigSource::default());
    ConfigSource { config_source_specifier: Some(itself), ..ConfigSource::default() }
}

/// The service accounts whose identities the endpoints inside the mesh have.
pub(crate) fn accounts(view: &PortView) -> BTreeSet<(&str, &str)> {
    view.endpoints
        .iter()
        .filter_map(|endpoint| endpoint.mesh.as_ref())
        .map(|inside| (inside.namespace.as_str(), inside.service_account.as_str()))
        .collect()
}

fn protocol_options(view: &PortView, dialect: Dialect, secured: bool) -> HashMap<String, Any> {
    use http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions as Upstream, UseDownstreamHttpConfig,
        explicit_http_config::ProtocolConfig,
    };
    let explicit = |protocol| Upstream::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(protocol) });
    let http1 = ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default());
    let http2 = ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
    let options = match view.protocol {
        Protocol::Tcp | Protocol::Tls => return HashMap::new(),
        // Towards a sidecar Envoy negotiates `h2`, whatever the application speaks.
        _ if dialect == Dialect::Envoy && secured => explicit(http2),
        Protocol::Http => explicit(http1),
        Protocol::H2c | Protocol::Grpc => explicit(http2),
        Protocol::Auto => Upstream::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(Http2ProtocolOptions::default()),
            ..UseDownstreamHttpConfig::default()
        }),
    };
    let timeouts = view.policy.timeouts.as_ref();
    let (idle, age) = timeouts.map_or((None, None), |timeouts| (timeouts.idle, timeouts.connection_age));
    let message = HttpProtocolOptions {
        upstream_protocol_options: Some(options),
        common_http_protocol_options: connections(idle, age),
        ..HttpProtocolOptions::default()
    };
    HashMap::from([(type_url::HTTP_PROTOCOL_OPTIONS_KEY.to_owned(), pack(type_url::HTTP_PROTOCOL_OPTIONS, &message))])
}

fn transport_socket(view: &PortView, dialect: Dialect, trust_domain: &TrustDomain) -> TransportSocket {
    let identities: Vec<StringMatcher> = accounts(view)
        .into_iter()
        .filter_map(|(namespace, account)| SpiffeId::new(trust_domain, namespace, account).ok())
        .map(|identity| StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::Exact(identity.to_string())),
            ..StringMatcher::default()
        })
        .collect();
    let common = match dialect {
        Dialect::Envoy => envoy_tls(identities, view.protocol),
        Dialect::Grpc | Dialect::Pillion => grpc_tls(identities),
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(
            type_url::UPSTREAM_TLS,
            &UpstreamTlsContext { common_tls_context: Some(common), ..UpstreamTlsContext::default() },
        ))),
    }
}

/// gRFC A29: certificate providers from the client's bootstrap file. It reads the
/// older list of alternative names only.
#[expect(deprecated, reason = "the field that gRFC A29 names")]
fn grpc_tls(identities: Vec<StringMatcher>) -> CommonTlsContext {
    let provider =
        CertificateProviderPluginInstance { instance_name: GRPC_PROVIDER.to_owned(), certificate_name: String::new() };
    CommonTlsContext {
        tls_certificate_provider_instance: Some(provider.clone()),
        validation_context_type: Some(common_tls_context::ValidationContextType::ValidationContext(
            CertificateValidationContext {
                ca_certificate_provider_instance: Some(provider),
                match_subject_alt_names: identities,
                ..CertificateValidationContext::default()
            },
        )),
        ..CommonTlsContext::default()
    }
}

/// Envoy: secrets by name, found among the static ones of its bootstrap.
fn envoy_tls(identities: Vec<StringMatcher>, protocol: Protocol) -> CommonTlsContext {
    let secret = |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: None };
    let names = identities
        .into_iter()
        .map(|matcher| SubjectAltNameMatcher {
            san_type: subject_alt_name_matcher::SanType::Uri.into(),
            matcher: Some(matcher),
            ..SubjectAltNameMatcher::default()
        })
        .collect();
    // As a client Envoy offers TLS 1.2 at most unless told otherwise, and sidecars speak 1.3 only.
    let version = tls_parameters::TlsProtocol::TlSv13.into();
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: version,
            tls_maximum_protocol_version: version,
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(ENVOY_CERTIFICATE)],
        alpn_protocols: protocol.carries_http().then(|| "h2".to_owned()).into_iter().collect(),
        validation_context_type: Some(common_tls_context::ValidationContextType::CombinedValidationContext(
            common_tls_context::CombinedCertificateValidationContext {
                default_validation_context: Some(CertificateValidationContext {
                    match_typed_subject_alt_names: names,
                    ..CertificateValidationContext::default()
                }),
                validation_context_sds_secret_config: Some(secret(ENVOY_ROOT)),
                ..common_tls_context::CombinedCertificateValidationContext::default()
            },
        )),
        ..CommonTlsContext::default()
    }
}
