//! Start and stop: builds every long-lived part once, and is the only place that knows them all.
//!
//! The data plane runs on one thread per worker; everything else (xDS, certificates,
//! admin, signals) on a small runtime of its own, so that neither can starve the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::admin::Admin;
use crate::admin::logging::Logging;
use crate::bootstrap::{self, AccessLogFile, Bootstrap, BootstrapError, TraceHeaders};
use crate::drain::Drain;
use crate::filter::Active;
use crate::identity::Identity;
use crate::listeners::{Bound, Listeners, other_family};
use crate::net::{Dialer, Namespace};
use crate::proxy::{Memory, Shared, health};
use crate::readiness::Readiness;
use crate::slot::Slot;
use crate::snapshot::{Cluster, Demand, Directory, Outbound};
use crate::store::Store;
use crate::telemetry::explain::Stories;
use crate::telemetry::load::Load;
use crate::telemetry::otlp::{Exporter, LogLayer, Queues};
use crate::telemetry::tap::{Taps, Us};
use crate::telemetry::trace::{Sampling, Share, Tracer};
use crate::telemetry::{About, AccessLog, Metrics, OwnLog, Push, Telemetry};
use crate::tls::{TlsClient, TlsServer, public_client};
use crate::{admin, application, discovery, dns, identity, init, observe, tls, upstream, worker};

/// How long what is left for the collector may take to be sent when stopping.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// How long the last lines of the access log are waited for, and those of our own.
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
    let log = match OwnLog::start(std::io::stderr()).context("cannot start the log") {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    let logging = log_to_stderr(&settings.log, &log);
    let result = run(settings, logging, &log);
    log.flush(LOG_PATIENCE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the program's own word to the person who started it")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("pillion-proxy: {error:#}");
    ExitCode::FAILURE
}

fn log_to_stderr(filter: &str, log: &OwnLog) -> Arc<Logging> {
    let (filter, text) = match EnvFilter::try_new(filter) {
        Ok(valid) => (valid, filter),
        Err(_invalid) => ("info".into(), "info"),
    };
    let (filter, handle) = reload::Layer::new(filter);
    // No colours, whatever another crate of the tree turns on.
    let lines = tracing_subscriber::fmt::layer().with_writer(log.clone()).with_ansi(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines).with(LogLayer);
    // It is set already when the program runs inside another one of ours.
    let is_ours = subscriber.try_init().is_ok();
    Logging::new(text, move |filter| {
        if !is_ours {
            return Err("the log belongs to another part of this program".to_owned());
        }
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}

fn run(settings: Bootstrap, logging: Arc<Logging>, log: &OwnLog) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    runtime.block_on(serve(settings, logging, log))?;
    // Tasks that wait for ever (xDS, renewal) must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

async fn serve(mut settings: Bootstrap, logging: Arc<Logging>, log: &OwnLog) -> anyhow::Result<()> {
    let started = SystemTime::now();
    let mut stop = StopSignal::new()?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let metrics = Arc::new(Metrics::of(settings.metrics.clone(), about(&settings)));
    metrics.watch("control", tokio::runtime::Handle::current());
    metrics.log_dropped(log.dropped());
    let queues = Queues::new(&settings, &metrics);
    let telemetry = telemetry(&settings, &queues, &metrics)?;
    let (mut exporter, push) = export(queues, &settings, &metrics)?;
    let namespace = namespace(&settings)?;
    let store = store(&settings)?;
    let mut bound = Bound::bind(&mut settings, namespace.as_ref()).await?;
    let dns_sockets = std::mem::take(&mut bound.dns);
    let settings = Arc::new(settings);
    let identity = Arc::new(Slot::new(None));
    let (demand, demanded) = mpsc::channel(discovery::DEMAND_CAPACITY);
    let shared = shared(&settings, Arc::clone(&identity), demand, telemetry);
    let dialer = dialer(&settings, namespace);
    let tls = Arc::new(TlsClient::new(Arc::clone(&identity)));
    let workers = (0..settings.workers.get())
        .map(|number| worker::start(number, Arc::clone(&shared), Arc::clone(&tls), dialer.clone()))
        .collect::<std::io::Result<Vec<_>>>()
        .context("cannot start a worker thread")?;
    let listeners = Listeners::new(Arc::clone(&shared), workers);
    let readiness = Arc::new(Readiness::new(Arc::clone(&shared), listeners.fronts(), store.clone()));

    let ledger = Arc::default();
    let admin = Arc::new(Admin {
        shared: Arc::clone(&shared),
        readiness: Arc::clone(&readiness),
        ledger: Arc::clone(&ledger),
        logging,
        started,
    });
    let (link, links) = watch::channel(None);

    tokio::spawn(identity::renew::run(Arc::clone(&settings), identity, Arc::clone(&metrics), store.clone()));
    tokio::spawn(discovery::run(discovery::Context {
        bootstrap: Arc::clone(&settings),
        identity: Arc::clone(&shared.identity),
        demand: demanded,
        outbound: shared.directory.shared_outbound(),
        inbound: Arc::clone(&shared.inbound),
        metrics: Arc::clone(&metrics),
        load: Arc::clone(&shared.telemetry.load),
        store,
        naming: naming(&shared, metrics),
        ledger,
        link,
    }));
    tokio::spawn(observe::run(Arc::clone(&admin), links));
    judge_hosts(&shared);
    tokio::spawn(health::run(Arc::clone(&shared), tls, dialer));
    tokio::spawn(answer_dns(Arc::clone(&shared), dns_sockets));
    let tended = Arc::clone(&shared.telemetry.metrics);
    tokio::spawn(async move { tended.tend().await });
    push_metrics(push, &mut exporter, &shared);
    let addresses = listeners.start(bound, &admin).await?;
    let announced = Arc::clone(&readiness);
    tokio::spawn(async move { announce(&announced, addresses).await });

    tokio::spawn(follow_rotation(hangup, shared.telemetry.access_log.clone()));

    tokio::select! {
        signal = stop.received() => tracing::info!(signal, "stopping"),
        () = shared.drain.stopping() => tracing::info!("stopping, as the admin port was asked to"),
    }
    drain(&shared).await;
    // What was seen until the end is told, too.
    exporter.flush(FLUSH_DEADLINE).await;
    shared.telemetry.access_log.flush(LOG_PATIENCE);
    Ok(())
}

/// Where requests are written down.
fn telemetry(settings: &Bootstrap, queues: &Queues, metrics: &Arc<Metrics>) -> anyhow::Result<Telemetry> {
    Ok(Telemetry {
        access_log: access_log(settings, metrics)?,
        stories: Stories::keeping(settings.explain_requests),
        metrics: Arc::clone(metrics),
        tracer: tracer(settings, queues, metrics),
        logs: queues.logs.clone(),
        taps: Arc::new(Taps::new(us(settings))),
        load: Arc::new(Load::new(settings.load_reports)),
    })
}

/// Watches hosts for outliers, where that is configured.
fn judge_hosts(shared: &Arc<Shared>) {
    let watched = Arc::clone(shared);
    let judged = move || {
        let clusters = watched.clusters();
        let judged = |cluster: &Arc<Cluster>| cluster.config.resilience.as_ref().is_some_and(|rules| rules.judges());
        clusters.into_iter().filter(judged).map(|cluster| Arc::clone(&cluster.upstream)).collect()
    };
    tokio::spawn(upstream::watch(judged, Arc::clone(&shared.telemetry.metrics)));
}

/// How requests become spans; `None`: fields of traces are left alone.
fn tracer(settings: &Bootstrap, queues: &Queues, metrics: &Metrics) -> Option<Arc<Tracer>> {
    let said = settings.tracing;
    if said.headers == TraceHeaders::Off {
        return None;
    }
    let share = Share::new(f64::from(said.per_million) / 1_000_000.0);
    let sampling = Sampling { share, slow: said.slow, errors: said.errors };
    let starts = said.headers == TraceHeaders::On;
    Some(Arc::new(Tracer::new(sampling, starts, queues.spans.clone(), metrics.spans())))
}

/// Begins to send to the collector, if there is one.
fn export(queues: Queues, settings: &Bootstrap, metrics: &Metrics) -> anyhow::Result<(Exporter, Option<Push>)> {
    let otlp = settings.otlp.as_ref().filter(|otlp| otlp.endpoint.scheme_str() == Some("https"));
    let tls = otlp.map(|otlp| public_client(otlp.ca.as_deref())).transpose().context("--otlp-endpoint")?;
    if let Some(logs) = &queues.logs {
        logs.listen();
    }
    let push = Push::new(settings, tls.clone()).context("--otlp-endpoint")?;
    Ok((queues.start(settings, metrics, tls).context("--otlp-endpoint")?, push))
}

/// Pushes metrics as long as we run, if somebody wants that.
fn push_metrics(push: Option<Push>, exporter: &mut Exporter, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    if let Some(push) = push {
        exporter.join(|stop| async move {
            push.run(&shared.telemetry.metrics, || admin::metrics(&shared), stop).await;
        });
    }
}

/// What metrics say of us.
fn about(settings: &Bootstrap) -> About {
    let provider = tls::provider();
    let exchanges = provider.kx_groups.iter().map(|group| format!("{:?}", group.name()));
    About {
        workload: settings.workload.as_str().into(),
        namespace: settings.id.namespace().into(),
        identity: settings.id.to_string().into(),
        zone: settings.zone.as_str().into(),
        tls: ("aws-lc-rs", exchanges.collect::<Vec<_>>().join(",").into()),
    }
}

fn shared(
    settings: &Arc<Bootstrap>,
    identity: Arc<Slot<Option<Identity>>>,
    demand: mpsc::Sender<Demand>,
    telemetry: Telemetry,
) -> Arc<Shared> {
    Arc::new(Shared {
        directory: Directory::new(Arc::new(Slot::new(Outbound::default())), demand),
        inbound: Arc::new(Slot::new(None)),
        tls: TlsServer::new(Arc::clone(&identity)),
        identity,
        telemetry,
        faults: Active::default(),
        mirrors: Active::default(),
        joined: Arc::default(),
        detected: Memory::default(),
        resolutions: Arc::default(),
        drain: Drain::default(),
        settings: Arc::clone(settings),
    })
}

/// Who we are, for those who look at requests.
fn us(settings: &Bootstrap) -> Us {
    Us {
        namespace: settings.id.namespace().to_owned(),
        workload: settings.workload.clone(),
        service_account: settings.id.service_account().to_owned(),
    }
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

/// How clusters that are found by name are found.
fn naming(shared: &Shared, metrics: Arc<Metrics>) -> discovery::Naming {
    let own = shared.settings.dns.iter().map(|dns| dns.listen).collect();
    discovery::Naming {
        lookups: Arc::new(dns::Lookups::new(nameservers(&shared.settings), own, metrics)),
        resolutions: Arc::clone(&shared.resolutions),
    }
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
