//! Wiring: the only place that knows all the parts.

use std::{io::Write as _, sync::Arc};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tracing::info;

use crate::{
    admin::Admin,
    ca::{authority::Authority, join_token::JoinKey, service::Certificates, serving::Serving},
    caller::Authenticator,
    dashboard::{api::Api, server::Dashboard},
    index::Index,
    load::service::Loads,
    metrics::Metrics,
    net::{port::Port, tls},
    observe::{self, Sidecars, logging::Logging},
    settings::Settings,
    shutdown::Shutdown,
    source::file::watch::Directory,
    telemetry::Spans,
    xds::{nodes::Nodes, server::Discovery},
};

/// Runs the control plane until SIGTERM or SIGINT. `spans` are sent to a collector, `logging` changes what is logged.
///
/// # Errors
///
/// When it cannot start.
pub async fn run(settings: Settings, spans: Option<Spans>, logging: Arc<Logging>) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let dropped = spans.as_ref().map(Spans::dropped).unwrap_or_default();
    let sending = spans.map(|spans| tokio::spawn(spans.send(shutdown.clone())));
    let metrics = Arc::new(Metrics::of(dropped));
    let nodes = Nodes::new(Arc::clone(&metrics));

    let (directory, first) = Directory::open(&settings.config)?;
    let index = Index::new(settings.trust_domain.clone(), Arc::clone(&metrics));
    index.apply(&first);
    let catalogs = index.subscribe();
    let status = index.status();
    directory
        .watch(move |update| {
            index.apply(&update);
            true
        })
        .context("cannot watch the configuration")?;

    let authority =
        Authority::load_or_make(&settings.state, &settings.trust_domain).context("certificate authority")?;
    let authenticator = Arc::new(Authenticator::new(
        settings.trust_domain.clone(),
        JoinKey::load(&settings.state)?,
        Arc::clone(&metrics),
    ));
    let listener = bind(settings.listen).await?;
    let admin_listener = bind(settings.admin).await?;
    let api = Arc::new(Api {
        observe: observe::api::Api {
            sidecars: Sidecars::new(),
            nodes: Arc::clone(&nodes),
            catalogs,
            shutdown: shutdown.clone(),
        },
        folder: settings.config.canonicalize().unwrap_or_else(|_unreadable| settings.config.clone()),
        trust_domain: settings.trust_domain.clone(),
        status: Arc::clone(&status),
        store: Arc::default(),
    });
    let dashboard = Dashboard::open(&settings, Arc::clone(&api), Arc::clone(&metrics)).await?;
    let provider = tls::provider();
    let serving = Arc::new(Serving::new(
        authority.clone(),
        settings.trust_domain.clone(),
        settings.listen.ip(),
        Arc::clone(&provider),
    )?);
    let config = tls::server_config(&authority, Arc::clone(&serving), provider)?;

    let routes = services(&settings, &api, authority, authenticator, &metrics);
    let port = Port {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        routes,
        metrics: Arc::clone(&metrics),
        shutdown: shutdown.clone(),
        listener,
    };
    let admin = Arc::new(Admin { metrics, nodes, status, api, logging });
    say_ready(&port.listener, &admin_listener, dashboard.as_ref().map(Dashboard::url))?;
    if let Some(dashboard) = dashboard {
        tokio::spawn(dashboard.serve(shutdown.clone()));
    }
    tokio::spawn(serving.renew(shutdown.clone()));
    let pages = tokio::spawn(admin.serve(admin_listener, shutdown.clone()));
    let serving = tokio::spawn(port.serve());
    stop_signal().await?;
    info!("stopping");
    shutdown.request();
    serving.await?;
    pages.await?;
    if let Some(sending) = sending {
        sending.await??;
    }
    Ok(())
}

/// What sidecars and other clients ask for.
fn services(
    settings: &Settings,
    api: &Api,
    authority: Authority,
    authenticator: Arc<Authenticator>,
    metrics: &Arc<Metrics>,
) -> Routes {
    let observe::api::Api { sidecars, nodes, catalogs, shutdown } = &api.observe;
    let discovery = Discovery {
        catalogs: catalogs.clone(),
        authenticator: Arc::clone(&authenticator),
        nodes: Arc::clone(nodes),
        metrics: Arc::clone(metrics),
        shutdown: shutdown.clone(),
    };
    let observe = observe::Service {
        authenticator: Arc::clone(&authenticator),
        sidecars: Arc::clone(sidecars),
        catalogs: catalogs.clone(),
        shutdown: shutdown.clone(),
    };
    let loads = Loads {
        catalogs: catalogs.clone(),
        store: Arc::clone(&api.store),
        authenticator: Arc::clone(&authenticator),
        interval: settings.load_interval,
        metrics: Arc::clone(metrics),
        shutdown: shutdown.clone(),
    };
    let certificates = Certificates {
        authority,
        authenticator,
        max_lifetime: settings.max_certificate_lifetime,
        metrics: Arc::clone(metrics),
    };
    Routes::new(discovery.into_service())
        .add_service(certificates.into_service())
        .add_service(observe.into_service())
        .add_service(loads.into_service())
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// The one line on standard output: whoever started this process waits for it.
fn say_ready(listener: &TcpListener, admin: &TcpListener, dashboard: Option<&str>) -> anyhow::Result<()> {
    let mut line = serde_json::json!({
        "event": "ready",
        "listen": listener.local_addr()?,
        "admin": admin.local_addr()?,
    });
    if let (Some(url), Some(fields)) = (dashboard, line.as_object_mut()) {
        fields.insert("dashboard".to_owned(), url.into());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
