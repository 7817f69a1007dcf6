//! The dashboard's own port: HTTP/1.1, read only but for log-in and log-out.
//!
//! Refused are requests under a name that is not this machine's (somebody else's DNS may point here), and requests of other
//! origins. What is not static needs a session, or the token as a bearer.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    api::{Api, error, respond},
    auth::{SESSION, Sessions, Verdict, random, read_token},
    page::FILES,
};
use crate::{
    admin::{Open, until_unused},
    metrics::Metrics,
    observe::api::Body,
    settings::{DashboardAddress, Settings},
    shutdown::Shutdown,
};

/// Where it is unless the settings say.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15016);
/// How many connections at a time: a browser takes six.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's head may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest body: a token.
const MAX_BODY: usize = 4096;

/// What browsers are to keep to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The dashboard, bound to its port.
pub struct Dashboard {
    listener: TcpListener,
    site: Arc<Site>,
    url: String,
}

struct Site {
    api: Arc<Api>,
    metrics: Arc<Metrics>,
    sessions: Sessions,
    port: u16,
    began: Instant,
}

impl Dashboard {
    /// Binds its port. `None`: it is off.
    ///
    /// # Errors
    /// When the address cannot be had, or others could reach it and there is no token of their own, or the token's file
    /// is of no use.
    pub async fn open(settings: &Settings, api: Arc<Api>, metrics: Arc<Metrics>) -> anyhow::Result<Option<Self>> {
        let listener = match settings.dashboard {
            Some(DashboardAddress::Off) => return Ok(None),
            Some(DashboardAddress::At(address)) => TcpListener::bind(address).await,
            None => match TcpListener::bind(USUAL).await {
                // Another control plane has it.
                Err(_) => TcpListener::bind(SocketAddr::new(USUAL.ip(), 0)).await,
                bound => bound,
            },
        };
        let listener = listener.context("cannot listen for the dashboard (--dashboard)")?;
        let address = listener.local_addr()?;
        let (token, shown) = match &settings.dashboard_token_file {
            Some(path) => (read_token(path)?, None),
            None if address.ip().is_loopback() => {
                let token = random()?;
                (token.clone(), Some(token))
            }
            None => bail!("--dashboard {address}: others can reach it, so it needs --dashboard-token-file"),
        };
        let url = format!("http://{address}/{}", shown.map(|token| format!("#token={token}")).unwrap_or_default());
        info!(%address, "dashboard");
        let site = Site { api, metrics, sessions: Sessions::new(&token), port: address.port(), began: Instant::now() };
        Ok(Some(Self { listener, site: Arc::new(site), url }))
    }

    /// The URL that a person opens, with the token unless that is in a file.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Serves it until asked to stop.
    pub async fn serve(self, shutdown: Shutdown) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = shutdown.requested() => break,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept connections to the dashboard");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                self.site.metrics.dashboard_refused("connections");
                continue;
            };
            let site = Arc::clone(&self.site);
            connections.spawn(async move {
                // Answers that are not read to their end: a tap's is endless.
                let open = Arc::new(AtomicUsize::new(0));
                let answers = Arc::clone(&open);
                let service = service_fn(move |request| {
                    let (site, open) = (Arc::clone(&site), Open::count(&answers));
                    async move {
                        let answer = site.answer(request, client.ip()).await;
                        Ok::<_, Infallible>(answer.map(|body| {
                            body.map_frame(move |frame| {
                                let _until_the_end = &open;
                                frame
                            })
                        }))
                    }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(16 << 10)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = until_unused(connection, &open).await {
                    debug!(%error, "connection to the dashboard ended");
                }
                drop(permit);
            });
        }
        connections.abort_all();
    }
}

type Answer = Response<Body>;

impl Site {
    async fn answer(&self, request: Request<Incoming>, client: IpAddr) -> Answer {
        let mut response = match self.refusal(request.headers()) {
            Some(reason) => {
                self.metrics.dashboard_refused(reason);
                respond(error(
                    StatusCode::FORBIDDEN,
                    "requests under other names, or of other origins, are not answered",
                ))
            }
            None => self.route(request, client).await,
        };
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::CACHE_CONTROL, "no-store"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in [
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    async fn route(&self, request: Request<Incoming>, client: IpAddr) -> Answer {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::POST, "/api/v1/login") => self.log_in(request, client).await,
            (&Method::POST, "/api/v1/logout") => self.log_out(request.headers()),
            (&Method::GET | &Method::HEAD, path) => {
                if let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == path) {
                    return file(kind, text);
                }
                if !path.starts_with("/api/") {
                    return respond(error(StatusCode::NOT_FOUND, "there is no such file"));
                }
                if let Err(answer) = self.may_look(request.headers(), client) {
                    return *answer;
                }
                let answer = self.api.answer(request.method(), request.uri()).await;
                answer.unwrap_or_else(|| respond(error(StatusCode::NOT_FOUND, "there is no such page")))
            }
            _ => respond(error(StatusCode::METHOD_NOT_ALLOWED, "read only")),
        }
    }

    /// Why a request is not even looked at.
    fn refusal(&self, headers: &HeaderMap) -> Option<&'static str> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let authority = host.parse::<Authority>().ok().filter(|_| hosts.next().is_none());
        let is_ours = authority.is_some_and(|authority| {
            let name = authority.host().trim_matches(['[', ']']);
            let is_address = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
            is_address && authority.port_u16().unwrap_or(80) == self.port
        });
        if !is_ours {
            return Some("host");
        }
        let own = format!("http://{host}");
        let is_foreign = |origin: &HeaderValue| !origin.as_bytes().eq_ignore_ascii_case(own.as_bytes());
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let is_cross = matches!(site, Some(b"cross-site" | b"same-site"));
        let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() == b"navigate");
        if headers.get_all(header::ORIGIN).iter().any(is_foreign) || (is_cross && !navigates) {
            return Some("origin");
        }
        None
    }

    fn may_look(&self, headers: &HeaderMap, client: IpAddr) -> Result<(), Box<Answer>> {
        let now = self.began.elapsed();
        if self.session(headers).is_some_and(|id| self.sessions.is_open(id, now)) {
            return Ok(());
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match bearer {
            Some(token) => self.check(token.trim(), client),
            None => Err(Box::new(respond(error(StatusCode::UNAUTHORIZED, "log in with the token")))),
        }
    }

    fn check(&self, token: &str, client: IpAddr) -> Result<(), Box<Answer>> {
        let answer = match self.sessions.check(token, client, self.began.elapsed()) {
            Verdict::Right => return Ok(()),
            Verdict::Wrong => {
                self.metrics.dashboard_refused("token");
                respond(error(StatusCode::UNAUTHORIZED, "this is not the token"))
            }
            Verdict::TooMany => {
                self.metrics.dashboard_refused("tries");
                let mut answer = respond(error(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens; wait a minute"));
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
                answer
            }
        };
        Err(Box::new(answer))
    }

    /// `{"token": "…"}` for a cookie.
    async fn log_in(&self, request: Request<Incoming>, client: IpAddr) -> Answer {
        let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if kind != Some(b"application/json") {
            return respond(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the token comes as JSON"));
        }
        let body = timeout(HEADER_TIMEOUT, Limited::new(request.into_body(), MAX_BODY).collect()).await;
        let Ok(Ok(body)) = body else { return respond(error(StatusCode::BAD_REQUEST, "no token came")) };
        let said: Option<serde_json::Value> = serde_json::from_slice(&body.to_bytes()).ok();
        let Some(token) = said.as_ref().and_then(|said| said.get("token")?.as_str()) else {
            return respond(error(StatusCode::BAD_REQUEST, "no token came"));
        };
        if let Err(answer) = self.check(token.trim(), client) {
            return *answer;
        }
        let Ok(id) = self.sessions.begin(self.began.elapsed()) else {
            return respond(error(StatusCode::INTERNAL_SERVER_ERROR, "no randomness"));
        };
        with_cookie(self.port, &id, SESSION.as_secs())
    }

    fn log_out(&self, headers: &HeaderMap) -> Answer {
        if let Some(id) = self.session(headers) {
            self.sessions.end(id);
        }
        with_cookie(self.port, "", 0)
    }

    fn session<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = cookie_name(self.port);
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }
}

/// Cookies do not know of ports: dashboards on several would log each other out.
fn cookie_name(port: u16) -> String {
    format!("pillion-session-{port}")
}

fn with_cookie(port: u16, id: &str, seconds: u64) -> Answer {
    let cookie = format!("{}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}", cookie_name(port));
    let mut answer = respond((StatusCode::OK, "{}\n".to_owned()));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

fn file(kind: &'static str, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
