//! Start and stop: builds every long-lived part once, and is the only place that knows them all.
//!
//! The data plane runs on one thread per worker; everything else (xDS, certificates,
//! admin, signals) on a small runtime of its own, so that neither can starve the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::bootstrap::{self, AccessLogFile, Bootstrap, BootstrapError};
use crate::drain::Drain;
use crate::filter::Active;
use crate::listeners::{Bound, Listeners, other_family};
use crate::net::{Dialer, Namespace};
use crate::proxy::{Memory, Shared, health};
use crate::readiness::Readiness;
use crate::slot::Slot;
use crate::snapshot::{Cluster, Directory, Outbound};
use crate::store::Store;
use crate::telemetry::explain::Stories;
use crate::telemetry::{AccessLog, Metrics, Telemetry};
use crate::tls::{TlsClient, TlsServer};
use crate::{application, discovery, dns, identity, init, upstream, worker};

/// How long the last lines of the access log are waited for.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// The program: reads its settings, runs until it is told to stop. With `init` as first argument it programs the redirect
/// instead.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|first| first == "init") {
        return init::main(args);
    }
    let settings = match bootstrap::load(args) {
        Ok(settings) => settings,
        Err(BootstrapError::Usage(usage)) => {
            // Nobody is left to tell when the terminal is gone.
            let _printed = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
        Err(error) => return fail(&anyhow::Error::new(error)),
    };
    log_to_stderr(&settings.log);
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the program's own word to the person who started it")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("pillion-proxy: {error:#}");
    ExitCode::FAILURE
}

fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_invalid| "info".into());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let subscriber = subscriber.with_ansi(false); // Whatever another crate of the tree turns on.
    // It is set already when the program runs inside another one of ours.
    let _already_set = subscriber.try_init();
}

fn run(settings: Bootstrap) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(serve(settings))?;
    // Tasks that wait for ever (xDS, renewal) must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

async fn serve(mut settings: Bootstrap) -> anyhow::Result<()> {
    let mut stop = StopSignal::new()?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let metrics = Arc::new(Metrics::new());
    let namespace = namespace(&settings)?;
    let store = store(&settings)?;
    let mut bound = Bound::bind(&mut settings, namespace.as_ref()).await?;
    let dns_sockets = std::mem::take(&mut bound.dns);
    let settings = Arc::new(settings);
    let identity = Arc::new(Slot::new(None));
    let (demand, demanded) = mpsc::channel(discovery::DEMAND_CAPACITY);
    let shared = Arc::new(Shared {
        directory: Directory::new(Arc::new(Slot::new(Outbound::default())), demand),
        inbound: Arc::new(Slot::new(None)),
        identity: Arc::clone(&identity),
        tls: TlsServer::new(Arc::clone(&identity)),
        telemetry: Telemetry {
            access_log: access_log(&settings, &metrics)?,
            stories: Stories::keeping(settings.explain_requests),
            metrics: Arc::clone(&metrics),
        },
        faults: Active::default(),
        mirrors: Active::default(),
        joined: Arc::default(),
        detected: Memory::default(),
        resolutions: Arc::default(),
        drain: Drain::default(),
        settings: Arc::clone(&settings),
    });
    let dialer = dialer(&settings, namespace);
    let tls = Arc::new(TlsClient::new(Arc::clone(&identity)));
    let workers = (0..settings.workers.get())
        .map(|number| worker::start(number, Arc::clone(&shared), Arc::clone(&tls), dialer.clone()))
        .collect::<std::io::Result<Vec<_>>>()
        .context("cannot start a worker thread")?;
    let listeners = Listeners::new(Arc::clone(&shared), workers);
    let readiness = Arc::new(Readiness::new(Arc::clone(&shared), listeners.fronts(), store.clone()));

    tokio::spawn(identity::renew::run(Arc::clone(&settings), identity, Arc::clone(&metrics), store.clone()));
    let own = settings.dns.iter().map(|dns| dns.listen).collect();
    tokio::spawn(discovery::run(discovery::Context {
        bootstrap: Arc::clone(&settings),
        identity: Arc::clone(&shared.identity),
        demand: demanded,
        outbound: shared.directory.shared_outbound(),
        inbound: Arc::clone(&shared.inbound),
        metrics: Arc::clone(&metrics),
        store,
        naming: discovery::Naming {
            lookups: Arc::new(dns::Lookups::new(nameservers(&settings), own, metrics)),
            resolutions: Arc::clone(&shared.resolutions),
        },
    }));
    let watched = Arc::clone(&shared);
    let judged = move || {
        let clusters = watched.clusters();
        let judged = |cluster: &Arc<Cluster>| cluster.config.resilience.as_ref().is_some_and(|rules| rules.judges());
        clusters.into_iter().filter(judged).map(|cluster| Arc::clone(&cluster.upstream)).collect()
    };
    tokio::spawn(upstream::watch(judged, Arc::clone(&shared.telemetry.metrics)));
    tokio::spawn(health::run(Arc::clone(&shared), tls, dialer));
    tokio::spawn(answer_dns(Arc::clone(&shared), dns_sockets));
    let addresses = listeners.start(bound, &readiness).await?;
    let announced = Arc::clone(&readiness);
    tokio::spawn(async move { announce(&announced, addresses).await });

    tokio::spawn(follow_rotation(hangup, shared.telemetry.access_log.clone()));

    tokio::select! {
        signal = stop.received() => tracing::info!(signal, "stopping"),
        () = shared.drain.stopping() => tracing::info!("stopping, as the admin port was asked to"),
    }
    drain(&shared).await;
    shared.telemetry.access_log.flush(LOG_PATIENCE);
    Ok(())
}

fn access_log(settings: &Bootstrap, metrics: &Metrics) -> anyhow::Result<AccessLog> {
    let file = &settings.access_log_file;
    let log = AccessLog::open(settings.access_log, &settings.access_log_format, file, metrics.access_log_dropped());
    log.with_context(|| match file {
        AccessLogFile::Path(path) => format!("cannot write the access log to {} (--access-log-file)", path.display()),
        AccessLogFile::Stdout | AccessLogFile::Stderr => "cannot start the access log".to_owned(),
    })
}

/// Opens the access log again whenever somebody says that its file has been moved away.
async fn follow_rotation(mut moved: Signal, log: AccessLog) {
    while moved.recv().await.is_some() {
        log.reopen();
    }
}

fn store(settings: &Bootstrap) -> anyhow::Result<Option<Arc<Store>>> {
    let Some(root) = &settings.state else { return Ok(None) };
    let store = Store::open(root, settings.id.namespace(), &settings.workload)
        .with_context(|| format!("cannot keep certificate and configuration in {} (--state)", root.display()))?;
    Ok(Some(Arc::new(store)))
}

/// What knows which ports are our own, so that nothing goes round.
fn dialer(settings: &Bootstrap, namespace: Option<Namespace>) -> Dialer {
    let outbound = settings.outbound_http.into_iter().flat_map(|own| {
        // Interception takes what comes to either family.
        let other = settings.intercept.is_some().then(|| SocketAddr::new(other_family(own.ip()), own.port()));
        std::iter::once(own).chain(other)
    });
    let tcp = settings.tcp.iter().map(|binding| binding.listen);
    let (own_ports, own_ports_there): (Arc<[_]>, Arc<[_]>) = match namespace {
        Some(_) => (tcp.collect(), outbound.collect()),
        None => {
            let all: Arc<[_]> = outbound.chain(tcp).collect();
            (Arc::clone(&all), all)
        }
    };
    Dialer { namespace, own_ports, own_ports_there }
}

fn namespace(settings: &Bootstrap) -> anyhow::Result<Option<Namespace>> {
    let path = settings.intercept.as_ref().and_then(|intercept| intercept.namespace.as_deref());
    path.map(|path| {
        Namespace::enter(path).with_context(|| {
            format!(
                "cannot enter the network namespace {} (--application-namespace); it takes CAP_SYS_ADMIN",
                path.display()
            )
        })
    })
    .transpose()
}

/// Whom names outside the mesh are asked of.
fn nameservers(settings: &Bootstrap) -> dns::Upstream {
    match settings.dns_upstream.as_slice() {
        [] => dns::Upstream::file("/etc/resolv.conf"),
        servers => dns::Upstream::fixed(servers.to_vec()),
    }
}

/// Answers the application's DNS until the application has gone.
async fn answer_dns(shared: Arc<Shared>, (udp, tcp): (Vec<UdpSocket>, Vec<TcpListener>)) {
    if shared.settings.dns.is_none() {
        return;
    }
    let upstream = nameservers(&shared.settings);
    let drain = shared.drain.of_application();
    let (directory, metrics) = (shared.directory.clone(), Arc::clone(&shared.telemetry.metrics));
    if let Err(error) = dns::serve(udp, tcp, directory, upstream, metrics, drain.stopping()).await {
        tracing::error!(%error, "cannot answer DNS");
    }
}

/// Tells whoever started us, in one line on standard output, that we serve and where.
async fn announce(readiness: &Readiness, addresses: BTreeMap<&'static str, serde_json::Value>) {
    readiness.wait().await;
    let mut line = serde_json::json!({ "event": "ready" });
    if let Some(fields) = line.as_object_mut() {
        fields.extend(addresses.into_iter().map(|(name, value)| (name.to_owned(), value)));
        fields.insert("front".to_owned(), readiness.fronts());
    }
    {
        use std::io::Write as _;
        // A parent that does not read this line is not waiting for it.
        let _unread = writeln!(std::io::stdout(), "{line}");
    }
    tracing::info!("ready");
}

/// Finishes what is under way, takes nothing new, and cuts what outlives the deadline. Behind interception the
/// application may call others for as long as it is there.
async fn drain(shared: &Shared) {
    let began = Instant::now();
    let deadline = shared.settings.timeouts.drain;
    shared.drain.stop();
    if let Some(intercept) = &shared.settings.intercept
        && timeout(deadline, application::gone(intercept)).await.is_err()
    {
        tracing::warn!("the application is still there; its connections end all the same");
    }
    shared.drain.application_gone();
    let left = shared.drain.finish(deadline.saturating_sub(began.elapsed())).await;
    if left > 0 {
        shared.telemetry.metrics.drain_cut(left);
        tracing::warn!(left, deadline = ?shared.settings.timeouts.drain, "cutting connections that outlived the drain deadline");
    } else {
        tracing::info!("drained");
    }
}

/// SIGTERM (an orchestrator) and SIGINT (a person).
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
