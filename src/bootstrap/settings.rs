//! The settings as said: every one optional, the same names in all three places.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use serde::Deserialize;

use super::BootstrapError;
use super::access_log::{AccessLog, AccessLogFile, AccessLogFormat};
use super::otlp::{OtlpHeader, OtlpProtocol, OtlpSignal};
use super::traces::{MaybeSpan, Percent, TraceHeaders};
use super::value::{InterceptMode, OnOff, Span, Switch, TcpBinding, UnknownDestinations};

/// The Pillion sidecar: takes over a workload's inbound and outbound traffic.
///
/// `pillion-proxy init` redirects connections of this network namespace to it; see `pillion-proxy init --help`.
///
/// Every setting can also be given in the environment, as PILLION_ and its name in upper case
/// (PILLION_CONTROL_PLANE), and in a JSON file, by its name with underscores ("control_plane").
/// A flag wins over the environment, and that over the file.
///
/// Durations are written like 500ms, 4s, 5m, 1h30m, 1d. Port 0 lets the system choose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser, Deserialize)]
#[command(name = "pillion-proxy", version)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// JSON file with settings [default: none]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(super) bootstrap: Option<PathBuf>,
    /// Name of our workload, unique in its namespace [required]
    #[arg(long, value_name = "NAME")]
    pub(super) workload: Option<String>,
    /// Namespace of our workload [default: default]
    #[arg(long, value_name = "NAME")]
    pub(super) namespace: Option<String>,
    /// Service account of our workload; with the namespace, its identity [default: default]
    #[arg(long, value_name = "NAME")]
    pub(super) service_account: Option<String>,
    /// Zone that we run in [default: our Workload's label topology.kubernetes.io/zone]
    #[arg(long, value_name = "NAME")]
    pub(super) zone: Option<String>,
    /// Trust domain of the mesh [default: cluster.local]
    #[arg(long, value_name = "NAME")]
    pub(super) trust_domain: Option<String>,
    /// Address of the control plane [required]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) control_plane: Option<String>,
    /// PEM file with the roots of the mesh; read again when it changes [required]
    #[arg(long, value_name = "FILE")]
    pub(super) control_plane_root: Option<PathBuf>,
    /// File with the token that proves our service account; read again at each use [required]
    #[arg(long, value_name = "FILE")]
    pub(super) join_token_file: Option<PathBuf>,
    /// Folder in which certificate and configuration are kept, so that a restart without the control plane serves; each
    /// workload has its own in it, for our user only [default: none, nothing is kept]
    #[arg(long, value_name = "FOLDER")]
    pub(super) state: Option<PathBuf>,
    /// Lifetime of our certificates; renewed at half of it [default: 24h]
    #[arg(long, value_name = "DURATION")]
    pub(super) certificate_lifetime: Option<Span>,
    /// Port on which the mesh reaches our workload, or "off" [default: off]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) mesh: Option<Switch>,
    /// Port that takes the application's outbound HTTP, or "off" [default: 127.0.0.1:15001]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) outbound_http: Option<Switch>,
    /// Take over connections that rules redirect here (see `pillion-proxy init --help`): off, redirect, or tproxy, which
    /// keeps the caller's source address towards the application. Outbound ones arrive on the port of --outbound-http,
    /// on 127.0.0.1 and [::1] [default: off]
    #[arg(long, value_name = "MODE")]
    pub(super) intercept: Option<InterceptMode>,
    /// Port that takes redirected connections to the application, for both IP families where the address is [::]
    /// [default: [::]:15006]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) inbound: Option<SocketAddr>,
    /// Intercepted connections to addresses that the control plane does not know: pass or refuse [default: pass]
    #[arg(long, value_name = "POLICY")]
    pub(super) unknown_destinations: Option<UnknownDestinations>,
    /// Network namespace of the application, when it is not ours, as /proc/PID/ns/net [default: ours]
    #[arg(long, value_name = "PATH")]
    pub(super) application_namespace: Option<PathBuf>,
    /// Port that answers DNS for names of the mesh and forwards the rest, UDP and TCP, or "off" [default: off]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) dns: Option<Switch>,
    /// Name servers that other names are forwarded to; repeat it, or separate by commas [default: those of
    /// /etc/resolv.conf]
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    pub(super) dns_upstream: Option<Vec<SocketAddr>>,
    /// Local TCP port that leads to one destination; repeat it, or separate by commas [default: none]
    #[arg(long, value_name = "IP:PORT=HOST:PORT", value_delimiter = ',')]
    pub(super) tcp: Option<Vec<TcpBinding>>,
    /// Admin page; keep it on localhost [default: 127.0.0.1:15000]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) admin: Option<SocketAddr>,
    /// Readiness: GET /healthz/ready [default: 0.0.0.0:15021]
    #[arg(long, value_name = "IP:PORT")]
    pub(super) health: Option<SocketAddr>,
    /// Threads that carry traffic [default: the CPU limit]
    #[arg(long, value_name = "COUNT")]
    pub(super) workers: Option<usize>,
    /// Connections served at once, per set of listeners [default: 10000]
    #[arg(long, value_name = "COUNT")]
    pub(super) max_connections: Option<usize>,
    /// Streams that one HTTP/2 client may have open [default: 1024]
    #[arg(long, value_name = "COUNT")]
    pub(super) h2_max_concurrent_streams: Option<u32>,
    /// Largest request head in bytes [default: 61440]
    #[arg(long, value_name = "BYTES")]
    pub(super) max_header_bytes: Option<u32>,
    /// Most fields of a request head [default: 100]
    #[arg(long, value_name = "COUNT")]
    pub(super) max_headers: Option<usize>,
    /// Longest wait for a complete request head [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub(super) head_timeout: Option<Span>,
    /// Longest TLS handshake of a caller [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub(super) tls_timeout: Option<Span>,
    /// How long a caller's connection may be without a request [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub(super) idle_timeout: Option<Span>,
    /// Longest wait for a connection to a host, unless its cluster says otherwise [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(super) connect_timeout: Option<Span>,
    /// Longest wait for the control plane to say where a new destination is [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(super) discovery_timeout: Option<Span>,
    /// How long a destination is kept up to date without use; at most twice as long [default: 10m]
    #[arg(long, value_name = "DURATION")]
    pub(super) destination_idle_timeout: Option<Span>,
    /// How long a pooled connection to a host is kept without a request [default: 90s]
    #[arg(long, value_name = "DURATION")]
    pub(super) upstream_idle_timeout: Option<Span>,
    /// How long requests in flight may take to finish when stopping [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub(super) drain_deadline: Option<Span>,
    /// Which requests are logged: off, errors, all, or sampled:10%, which is errors and a share of the rest
    /// [default: errors; of sampled alone: 1%]
    #[arg(long, value_name = "WHICH")]
    pub(super) access_log: Option<AccessLog>,
    /// Where /metrics alone is served, or off [default: 0.0.0.0:15090]
    #[arg(long, value_name = "IP:PORT|off")]
    pub(super) metrics: Option<Switch>,
    /// Label sets that are kept of each kind; what is beyond is counted under the labels called other [default: 2000]
    #[arg(long, value_name = "COUNT")]
    pub(super) metrics_max_series: Option<usize>,
    /// When a label set without a count is forgotten [default: 10m]
    #[arg(long, value_name = "DURATION")]
    pub(super) metrics_idle: Option<Span>,
    /// Are Istio's families of metrics shown, too? on, off [default: off]
    #[arg(long, value_name = "on|off")]
    pub(super) metrics_istio: Option<OnOff>,
    /// Is it measured where the time of requests goes? on, off [default: on]
    #[arg(long, value_name = "on|off")]
    pub(super) metrics_overhead: Option<OnOff>,
    /// Are sampled requests shown as examples of histograms? on, off [default: on]
    #[arg(long, value_name = "on|off")]
    pub(super) metrics_exemplars: Option<OnOff>,
    /// How often metrics are pushed to the collector, when it gets them [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub(super) metrics_export_interval: Option<Span>,
    /// Tell the control plane of the traffic when it asks: true, false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(super) load_reports: Option<bool>,
    /// How they are written: json, text (Envoy's default), or a format with Envoy's %OPERATORS% [default: json]
    #[arg(long, value_name = "FORMAT")]
    pub(super) access_log_format: Option<AccessLogFormat>,
    /// Where to: stderr, stdout, or a file, which is opened again on SIGHUP [default: stderr]
    #[arg(long, value_name = "PATH")]
    pub(super) access_log_file: Option<AccessLogFile>,
    /// Requests whose story each worker keeps for /explain, failed ones and others each; 0 keeps none [default: 256]
    #[arg(long, value_name = "COUNT")]
    pub(super) explain_requests: Option<u16>,
    /// OpenTelemetry collector that traces (and what --otlp-signals says) are sent to, as http://127.0.0.1:4317
    /// [default: OTEL_EXPORTER_OTLP_ENDPOINT, else none]
    #[arg(long, value_name = "URL")]
    pub(super) otlp_endpoint: Option<String>,
    /// How the collector is spoken to: grpc, or http/protobuf [default: OTEL_EXPORTER_OTLP_PROTOCOL, else grpc]
    #[arg(long, value_name = "PROTOCOL")]
    pub(super) otlp_protocol: Option<OtlpProtocol>,
    /// Fields that every export carries; repeat it, or separate by commas [default: OTEL_EXPORTER_OTLP_HEADERS, else none]
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    pub(super) otlp_headers: Option<Vec<OtlpHeader>>,
    /// What the collector gets: traces, metrics, logs (the access log); repeat it, or separate by commas [default: traces]
    #[arg(long, value_name = "SIGNAL", value_delimiter = ',')]
    pub(super) otlp_signals: Option<Vec<OtlpSignal>>,
    /// PEM file with certificates that vouch for a collector behind https [default: OTEL_EXPORTER_OTLP_CERTIFICATE, else
    /// those of the system]
    #[arg(long, value_name = "FILE")]
    pub(super) otlp_ca: Option<PathBuf>,
    /// What the collector knows us by (service.name) [default: OTEL_SERVICE_NAME, else the service account, or the workload
    /// where that is "default"]
    #[arg(long, value_name = "NAME")]
    pub(super) otlp_service_name: Option<String>,
    /// What is done with fields of traces (traceparent, tracestate, baggage, B3): auto begins a trace where there is none if
    /// spans go to a collector, on always, off leaves them alone [default: auto]
    #[arg(long, value_name = "WHAT")]
    pub(super) trace_headers: Option<TraceHeaders>,
    /// Share of traces that are sampled where whoever called has not decided it [default: 1%]
    #[arg(long, value_name = "PERCENT")]
    pub(super) trace_sampling: Option<Percent>,
    /// Requests that take this long until their answer begins are kept in any case; or "off" [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub(super) trace_slow: Option<MaybeSpan>,
    /// Whether requests that fail are kept in any case: on, off [default: on]
    #[arg(long, value_name = "WHETHER")]
    pub(super) trace_errors: Option<OnOff>,
    /// What is logged, such as "info" or "info,pillion_proxy::discovery=debug" [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(super) log: Option<String>,
}

/// Flags that have a variable in OpenTelemetry's specification as well ("OpenTelemetry Protocol Exporter").
const STANDARD: [(&str, &str); 5] = [
    ("otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("otlp-protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("otlp-headers", "OTEL_EXPORTER_OTLP_HEADERS"),
    ("otlp-ca", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ("otlp-service-name", "OTEL_SERVICE_NAME"),
];

impl Settings {
    pub(super) fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(args)
    }

    /// Variables are read as the flags that they stand for, so that both accept the same.
    pub(super) fn from_environment(variables: &HashMap<OsString, OsString>) -> Result<Self, clap::Error> {
        let mut args = vec![OsString::from("pillion-proxy")];
        for argument in Self::command().get_arguments() {
            let Some(flag) = argument.get_long() else { continue };
            let variable = format!("PILLION_{}", argument.get_id().as_str().to_ascii_uppercase());
            let given = |name: &str| variables.get(&OsString::from(name)).filter(|value| !value.is_empty());
            // What OpenTelemetry's specification names is known without our prefix, too.
            let standard = STANDARD.iter().find(|(ours, _)| *ours == flag).and_then(|(_, name)| given(name));
            if let Some(value) = given(&variable).or(standard) {
                let mut arg = OsString::from(format!("--{flag}="));
                arg.push(value);
                args.push(arg);
            }
        }
        Self::try_parse_from(args)
    }

    pub(super) fn from_file(path: PathBuf) -> Result<Self, BootstrapError> {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(BootstrapError::Unreadable { path, source }),
        };
        serde_json::from_slice(&text).map_err(|source| BootstrapError::Malformed { path, source })
    }

    /// These settings, and those of `lower` where this one is silent.
    pub(super) fn or(self, lower: Self) -> Self {
        Self {
            bootstrap: self.bootstrap.or(lower.bootstrap),
            workload: self.workload.or(lower.workload),
            namespace: self.namespace.or(lower.namespace),
            service_account: self.service_account.or(lower.service_account),
            zone: self.zone.or(lower.zone),
            trust_domain: self.trust_domain.or(lower.trust_domain),
            control_plane: self.control_plane.or(lower.control_plane),
            control_plane_root: self.control_plane_root.or(lower.control_plane_root),
            join_token_file: self.join_token_file.or(lower.join_token_file),
            state: self.state.or(lower.state),
            certificate_lifetime: self.certificate_lifetime.or(lower.certificate_lifetime),
            mesh: self.mesh.or(lower.mesh),
            outbound_http: self.outbound_http.or(lower.outbound_http),
            intercept: self.intercept.or(lower.intercept),
            inbound: self.inbound.or(lower.inbound),
            unknown_destinations: self.unknown_destinations.or(lower.unknown_destinations),
            application_namespace: self.application_namespace.or(lower.application_namespace),
            dns: self.dns.or(lower.dns),
            dns_upstream: self.dns_upstream.or(lower.dns_upstream),
            tcp: self.tcp.or(lower.tcp),
            admin: self.admin.or(lower.admin),
            health: self.health.or(lower.health),
            workers: self.workers.or(lower.workers),
            max_connections: self.max_connections.or(lower.max_connections),
            h2_max_concurrent_streams: self.h2_max_concurrent_streams.or(lower.h2_max_concurrent_streams),
            max_header_bytes: self.max_header_bytes.or(lower.max_header_bytes),
            max_headers: self.max_headers.or(lower.max_headers),
            head_timeout: self.head_timeout.or(lower.head_timeout),
            tls_timeout: self.tls_timeout.or(lower.tls_timeout),
            idle_timeout: self.idle_timeout.or(lower.idle_timeout),
            connect_timeout: self.connect_timeout.or(lower.connect_timeout),
            discovery_timeout: self.discovery_timeout.or(lower.discovery_timeout),
            destination_idle_timeout: self.destination_idle_timeout.or(lower.destination_idle_timeout),
            upstream_idle_timeout: self.upstream_idle_timeout.or(lower.upstream_idle_timeout),
            drain_deadline: self.drain_deadline.or(lower.drain_deadline),
            access_log: self.access_log.or(lower.access_log),
            metrics: self.metrics.or(lower.metrics),
            metrics_max_series: self.metrics_max_series.or(lower.metrics_max_series),
            metrics_idle: self.metrics_idle.or(lower.metrics_idle),
            metrics_istio: self.metrics_istio.or(lower.metrics_istio),
            metrics_overhead: self.metrics_overhead.or(lower.metrics_overhead),
            metrics_exemplars: self.metrics_exemplars.or(lower.metrics_exemplars),
            metrics_export_interval: self.metrics_export_interval.or(lower.metrics_export_interval),
            load_reports: self.load_reports.or(lower.load_reports),
            access_log_format: self.access_log_format.or(lower.access_log_format),
            access_log_file: self.access_log_file.or(lower.access_log_file),
            explain_requests: self.explain_requests.or(lower.explain_requests),
            otlp_endpoint: self.otlp_endpoint.or(lower.otlp_endpoint),
            otlp_protocol: self.otlp_protocol.or(lower.otlp_protocol),
            otlp_headers: self.otlp_headers.or(lower.otlp_headers),
            otlp_signals: self.otlp_signals.or(lower.otlp_signals),
            otlp_ca: self.otlp_ca.or(lower.otlp_ca),
            otlp_service_name: self.otlp_service_name.or(lower.otlp_service_name),
            trace_headers: self.trace_headers.or(lower.trace_headers),
            trace_sampling: self.trace_sampling.or(lower.trace_sampling),
            trace_slow: self.trace_slow.or(lower.trace_slow),
            trace_errors: self.trace_errors.or(lower.trace_errors),
            log: self.log.or(lower.log),
        }
    }
}
