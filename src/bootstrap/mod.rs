//! Settings that a sidecar starts with. Everything else comes from the control plane.
//!
//! Each setting can be given in three places, and the first that has it wins:
//! the command line, the environment (`PILLION_` and the name in upper case),
//! the JSON file named by `--bootstrap`. Below this module nobody reads any of
//! them: [`Bootstrap`] holds values that need no further checking.

mod access_log;
mod log_format;
mod metrics;
mod otlp;
mod settings;
mod traces;
mod value;

pub use access_log::{AccessLog, AccessLogFile, AccessLogFormat};
pub use log_format::{Format as LogFormat, Part as LogPart, Value as LogValue};
pub use metrics::MetricsSettings;
pub use otlp::{Otlp, OtlpProtocol, OtlpSignal};
pub use traces::{TraceHeaders, Tracing};
pub use value::{Redirection, TcpBinding, UnknownDestinations, ValueError};

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use pillion_wire::mesh::NodeInfo;
use pillion_wire::spiffe::{SpiffeId, SpiffeIdError};

use settings::Settings;
use value::{InterceptMode, OnOff, Switch};

/// What a sidecar has to know before it can ask for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Name of our workload, unique in its namespace.
    pub workload: String,
    /// Who we are; also says our namespace, service account and trust domain.
    pub id: SpiffeId,
    /// The zone that we run in; empty: as our Workload's label says.
    pub zone: String,
    /// How to reach and trust the control plane.
    pub control_plane: ControlPlane,
    /// Where certificate and configuration are kept. `None`: they are not.
    pub state: Option<PathBuf>,
    /// Lifetime that is asked for when a certificate is requested. The CA may give less.
    pub certificate_lifetime: Duration,
    /// The mesh port. `None`: nothing is received from the mesh.
    pub mesh: Option<SocketAddr>,
    /// The port that takes the application's outbound HTTP. `None`: off.
    pub outbound_http: Option<SocketAddr>,
    /// Takes over connections that rules redirect to us. `None`: applications name us.
    pub intercept: Option<Intercept>,
    /// Answers DNS. `None`: off.
    pub dns: Option<Dns>,
    /// Who is asked for names outside the mesh, for the application and for clusters that are found by name. Empty: the
    /// name servers of `/etc/resolv.conf`.
    pub dns_upstream: Vec<SocketAddr>,
    /// Local TCP ports that lead to one destination each.
    pub tcp: Vec<TcpBinding>,
    /// Admin page, on localhost.
    pub admin: SocketAddr,
    /// Readiness, for whoever watches over us.
    pub health: SocketAddr,
    /// Data-plane threads.
    pub workers: NonZeroUsize,
    /// Bounds on what peers may use.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// How metrics are kept and shown.
    pub metrics: MetricsSettings,
    /// Is the control plane told of the traffic, when it asks (LRS)?
    pub load_reports: bool,
    /// In which words.
    pub access_log_format: AccessLogFormat,
    /// Where to.
    pub access_log_file: AccessLogFile,
    /// Requests whose story each worker keeps: failed ones, and as many others. 0: none.
    pub explain_requests: usize,
    /// Where telemetry is pushed to. `None`: nowhere.
    pub otlp: Option<Otlp>,
    /// Which requests become spans of a trace, and who begins one.
    pub tracing: Tracing,
    /// Filter of the log, in the syntax of `tracing-subscriber`.
    pub log: String,
}

/// The control plane's address and what proves that it is the right one, and that we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// `host:port`.
    pub address: String,
    /// The mesh's roots, PEM. Read again when it changes.
    pub root: PathBuf,
    /// Our join token. Read again at each use.
    pub join_token: PathBuf,
}

/// How connections are taken over that were not meant for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// How they come here.
    pub redirection: Redirection,
    /// Where those to the application come in. `[::]` stands for all addresses of both IP families.
    pub inbound: SocketAddr,
    /// What becomes of those to addresses that nobody knows.
    pub unknown: UnknownDestinations,
    /// The application's network namespace, when it is not ours.
    pub namespace: Option<PathBuf>,
}

/// DNS for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// UDP and TCP.
    pub listen: SocketAddr,
}

/// Bounds on what peers may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are served at once, per set of listeners.
    pub max_connections: NonZeroUsize,
    /// Streams that one HTTP/2 client may have open.
    pub h2_max_concurrent_streams: u32,
    /// Size of a request head in bytes.
    pub max_header_bytes: u32,
    /// Fields of a request head.
    pub max_headers: NonZeroUsize,
}

/// Deadlines. None of them is zero, save [`Self::drain`], which may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From a connection, or the end of the last request, to a complete request head.
    pub head: Duration,
    /// Handshake, as a server.
    pub tls: Duration,
    /// A client's connection without a request.
    pub idle: Duration,
    /// Connecting to a host, when its cluster does not say.
    pub connect: Duration,
    /// Waiting for the control plane to say where a new destination is.
    pub discovery: Duration,
    /// A destination or host name that nobody asks for: afterwards it is no longer kept up to date.
    pub destination_idle: Duration,
    /// A pooled connection to a host without a request.
    pub upstream_idle: Duration,
    /// Finishing what is in flight when stopping.
    pub drain: Duration,
}

/// Why there is nothing to start with.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The command line is wrong, or asks for help. Knows how to print itself, and the exit code.
    #[error(transparent)]
    Usage(clap::Error),
    /// A variable `PILLION_…` is wrong.
    #[error("in the environment (flag --x is variable PILLION_X): {0}")]
    Environment(clap::Error),
    /// The bootstrap file cannot be read.
    #[error("cannot read the bootstrap file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bootstrap file is not what it should be.
    #[error("in the bootstrap file {}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What, with line and column.
        source: serde_json::Error,
    },
    /// A setting without default was not given.
    #[error("--{0} is needed: give it as flag, in the environment or in the bootstrap file")]
    Missing(&'static str),
    /// Trust domain, namespace and service account make no SPIFFE id.
    #[error("trust domain, namespace and service account make no identity: {0}")]
    Identity(#[from] SpiffeIdError),
    /// A setting is out of its range.
    #[error("--{name}: {problem}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A setting makes no sense without another one.
    #[error("--{name} needs {needs}")]
    Needs {
        /// The setting.
        name: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A port for all interfaces where a specific address is needed.
    #[error("--mesh {0}: callers need one address to dial; give the workload's own, not all interfaces")]
    UnspecifiedMesh(SocketAddr),
}

/// Reads all settings. `args` starts with the name of the program.
///
/// # Errors
/// [`BootstrapError`] says which setting is wrong and where it was given.
pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Bootstrap, BootstrapError> {
    load_from(args, &std::env::vars_os().collect())
}

fn load_from(
    args: impl IntoIterator<Item = OsString>,
    environment: &HashMap<OsString, OsString>,
) -> Result<Bootstrap, BootstrapError> {
    let given = Settings::from_args(args)
        .map_err(BootstrapError::Usage)?
        .or(Settings::from_environment(environment).map_err(BootstrapError::Environment)?);
    match given.bootstrap.clone() {
        Some(path) => build(given.or(Settings::from_file(path)?)),
        None => build(given),
    }
}

impl Bootstrap {
    /// Is it one of our own ports? To carry traffic there would be to send it to ourselves.
    pub fn is_own_port(&self, port: u16) -> bool {
        let fixed = [Some(self.admin), Some(self.health), self.metrics.listen, self.mesh, self.outbound_http];
        let intercepting = [self.intercept.as_ref().map(|i| i.inbound), self.dns.as_ref().map(|dns| dns.listen)];
        fixed.into_iter().chain(intercepting).flatten().any(|address| address.port() == port)
            || self.tcp.iter().any(|binding| binding.listen.port() == port)
    }

    /// How connections are redirected to us, if they are.
    pub fn redirection(&self) -> Option<Redirection> {
        self.intercept.as_ref().map(|intercept| intercept.redirection)
    }

    /// How we introduce ourselves to the control plane.
    pub fn node(&self) -> NodeInfo {
        NodeInfo {
            workload: self.workload.clone(),
            namespace: self.id.namespace().to_owned(),
            service_account: self.id.service_account().to_owned(),
            zone: self.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

fn build(settings: Settings) -> Result<Bootstrap, BootstrapError> {
    let trust_domain = settings.trust_domain.as_deref().unwrap_or("cluster.local").parse()?;
    let namespace = settings.namespace.as_deref().unwrap_or("default");
    let account = settings.service_account.as_deref().unwrap_or("default");
    let limits = limits(&settings)?;
    let timeouts = timeouts(&settings)?;
    let mesh = settings.mesh.and_then(Switch::address);
    if let Some(mesh) = mesh.filter(|mesh| mesh.ip().is_unspecified()) {
        return Err(BootstrapError::UnspecifiedMesh(mesh));
    }
    let outbound_http = settings.outbound_http.map_or_else(|| Some(local(15001)), Switch::address);
    let intercept = intercept(&settings, outbound_http)?;
    let metrics = metrics(&settings)?;
    let otlp = otlp::build(&settings)?;
    let tracing = traces::build(&settings)?;
    Ok(Bootstrap {
        intercept,
        dns: settings.dns.and_then(Switch::address).map(|listen| Dns { listen }),
        dns_upstream: settings.dns_upstream.clone().unwrap_or_default(),
        id: SpiffeId::new(&trust_domain, namespace, account)?,
        workload: settings.workload.ok_or(BootstrapError::Missing("workload"))?,
        zone: settings.zone.unwrap_or_default(),
        control_plane: ControlPlane {
            address: settings.control_plane.ok_or(BootstrapError::Missing("control-plane"))?,
            root: settings.control_plane_root.ok_or(BootstrapError::Missing("control-plane-root"))?,
            join_token: settings.join_token_file.ok_or(BootstrapError::Missing("join-token-file"))?,
        },
        state: settings.state,
        certificate_lifetime: span("certificate-lifetime", settings.certificate_lifetime, 86_400)?,
        mesh,
        outbound_http,
        tcp: settings.tcp.unwrap_or_default(),
        admin: settings.admin.unwrap_or_else(|| local(15000)),
        health: settings.health.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 15021))),
        workers: count("workers", settings.workers, cpu_limit())?,
        limits,
        timeouts,
        access_log: settings.access_log.unwrap_or_default(),
        metrics,
        load_reports: settings.load_reports.unwrap_or(true),
        access_log_format: settings.access_log_format.unwrap_or_default(),
        access_log_file: settings.access_log_file.unwrap_or_default(),
        explain_requests: settings.explain_requests.unwrap_or(256).into(),
        otlp,
        tracing,
        log: settings.log.unwrap_or_else(|| "info".to_owned()),
    })
}

fn intercept(settings: &Settings, outbound: Option<SocketAddr>) -> Result<Option<Intercept>, BootstrapError> {
    let Some(InterceptMode::On(redirection)) = settings.intercept else {
        let without = [
            ("inbound", settings.inbound.is_some()),
            ("unknown-destinations", settings.unknown_destinations.is_some()),
            ("application-namespace", settings.application_namespace.is_some()),
        ];
        return match without.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(BootstrapError::Needs { name, needs: "--intercept redirect or tproxy" }),
            None => Ok(None),
        };
    };
    // The kernel redirects an application's connections to the loopback address of their family.
    if !outbound.is_some_and(|address| address.ip().is_loopback()) {
        return Err(BootstrapError::Needs { name: "intercept", needs: "--outbound-http on a loopback address" });
    }
    if redirection == Redirection::Tproxy && settings.application_namespace.is_some() {
        return Err(BootstrapError::Needs { name: "intercept tproxy", needs: "the application in our own namespace" });
    }
    Ok(Some(Intercept {
        redirection,
        inbound: settings.inbound.unwrap_or_else(|| SocketAddr::from(([0; 16], 15006))),
        unknown: settings.unknown_destinations.unwrap_or_default(),
        namespace: settings.application_namespace.clone(),
    }))
}

fn limits(settings: &Settings) -> Result<Limits, BootstrapError> {
    let problem = "must be from 1 KiB to 16 MiB";
    let max_header_bytes = settings.max_header_bytes.unwrap_or(60 << 10);
    if !(1 << 10..=16 << 20).contains(&max_header_bytes) {
        return Err(BootstrapError::Range { name: "max-header-bytes", problem });
    }
    let streams = settings.h2_max_concurrent_streams.unwrap_or(1024);
    if streams == 0 {
        return Err(BootstrapError::Range { name: "h2-max-concurrent-streams", problem: "must not be 0" });
    }
    Ok(Limits {
        max_connections: count("max-connections", settings.max_connections, 10_000)?,
        h2_max_concurrent_streams: streams,
        max_header_bytes,
        max_headers: count("max-headers", settings.max_headers, 100)?,
    })
}

fn timeouts(settings: &Settings) -> Result<Timeouts, BootstrapError> {
    Ok(Timeouts {
        head: span("head-timeout", settings.head_timeout, 10)?,
        tls: span("tls-timeout", settings.tls_timeout, 10)?,
        idle: span("idle-timeout", settings.idle_timeout, 3600)?,
        connect: span("connect-timeout", settings.connect_timeout, 5)?,
        discovery: span("discovery-timeout", settings.discovery_timeout, 5)?,
        destination_idle: span("destination-idle-timeout", settings.destination_idle_timeout, 600)?,
        upstream_idle: span("upstream-idle-timeout", settings.upstream_idle_timeout, 90)?,
        drain: settings.drain_deadline.map_or_else(|| Duration::from_secs(30), Duration::from),
    })
}

fn metrics(settings: &Settings) -> Result<MetricsSettings, BootstrapError> {
    let listen = || Some(SocketAddr::from(([0, 0, 0, 0], 15090)));
    Ok(MetricsSettings {
        listen: settings.metrics.map_or_else(listen, Switch::address),
        max_series: count("metrics-max-series", settings.metrics_max_series, 2000)?,
        idle: span("metrics-idle", settings.metrics_idle, 600)?,
        istio: settings.metrics_istio.is_some_and(OnOff::is_on),
        overhead: settings.metrics_overhead.is_none_or(OnOff::is_on),
        exemplars: settings.metrics_exemplars.is_none_or(OnOff::is_on),
        export_interval: span("metrics-export-interval", settings.metrics_export_interval, 60)?,
    })
}

fn span(name: &'static str, given: Option<value::Span>, default_seconds: u64) -> Result<Duration, BootstrapError> {
    let span = given.map_or_else(|| Duration::from_secs(default_seconds), Duration::from);
    if span.is_zero() {
        return Err(BootstrapError::Range { name, problem: "must be longer than 0" });
    }
    Ok(span)
}

fn count(name: &'static str, given: Option<usize>, default: usize) -> Result<NonZeroUsize, BootstrapError> {
    NonZeroUsize::new(given.unwrap_or(default)).ok_or(BootstrapError::Range { name, problem: "must not be 0" })
}

/// What the scheduler lets us use: affinity and the cgroup's quota are both counted in.
fn cpu_limit() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests;
