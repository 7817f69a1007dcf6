//! The way to the control plane: TLS to exactly that peer, HTTP/2, with our certificate once there is one.

use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use pillion_wire::spiffe::{SpiffeId, control_plane_id};
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::provider;
use super::verify::{ServerVerifier, peer_error};

/// TCP, TLS and HTTP/2 set-up together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead control plane is noticed after about the two of these together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the control plane could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address is none.
    #[error("{0:?} is no HOST:PORT")]
    Address(String),
    /// The host name is none.
    #[error("{0:?} is neither an IP address nor a DNS name: {1}")]
    Host(String, InvalidDnsNameError),
    /// Our own TLS settings do not fit together.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Nobody is there.
    #[error("cannot connect to the control plane at {address}: {source}")]
    Tcp {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The handshake failed.
    #[error("no TLS with the control plane at {address}: {}", describe(source))]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// HTTP/2 set-up failed.
    #[error("no HTTP/2 with the control plane at {address}: {}", chain(source))]
    Http {
        /// Where.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// No answer at all.
    #[error("cannot connect to the control plane at {0} within {CONNECT_TIMEOUT:?}")]
    Timeout(String),
}

/// Connects to the control plane at `address`.
///
/// Whoever answers has to hold the control plane's id of `ours`' trust domain,
/// vouched for by `roots`. `key` is our certificate, if we have one.
///
/// # Errors
/// [`ControlError`]. A deadline of 5 s covers all of it.
///
/// # Cancel safety
/// Dropping the future closes what was opened.
pub async fn connect(
    address: &str,
    ours: &SpiffeId,
    roots: Arc<RootCertStore>,
    key: Option<Arc<CertifiedKey>>,
) -> Result<Channel, ControlError> {
    let tls = TlsConnector::from(Arc::new(client_config(control_plane_id(ours.trust_domain()), roots, key)?));
    let name = server_name(address)?;
    match tokio::time::timeout(CONNECT_TIMEOUT, open(address, name, tls)).await {
        Ok(opened) => opened,
        Err(_elapsed) => Err(ControlError::Timeout(address.to_owned())),
    }
}

async fn open(address: &str, name: ServerName<'static>, tls: TlsConnector) -> Result<Channel, ControlError> {
    let tcp = |source| ControlError::Tcp { address: address.to_owned(), source };
    let stream = TcpStream::connect(address).await.map_err(tcp)?;
    stream.set_nodelay(true).map_err(tcp)?;
    let handshake = |source| ControlError::Handshake { address: address.to_owned(), source };
    let stream = tls.connect(name, stream).await.map_err(handshake)?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(handshake(io::Error::other("the peer does not agree to speak HTTP/2")));
    }
    let connector = Connector(Some(TokioIo::new(stream)));
    // The scheme is plain because TLS is already there; nothing is sent in the clear.
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_cause| ControlError::Address(address.to_owned()))?
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|source| ControlError::Http { address: address.to_owned(), source })
}

fn client_config(
    expected: SpiffeId,
    roots: Arc<RootCertStore>,
    key: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = Arc::new(ServerVerifier::new(expected, roots, Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // The verifier is stricter than the standard one.
        .with_custom_certificate_verifier(verifier);
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled(); // One connection that lasts; roots and key may be others next time.
    Ok(config)
}

fn server_name(address: &str) -> Result<ServerName<'static>, ControlError> {
    let wrong = || ControlError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_cause| wrong())?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|error| ControlError::Host(host.to_owned(), error))
}

/// Hands tonic the one connection that there is. When that ends, so does the channel: who used it decides what is next.
struct Connector(Option<TokioIo<TlsStream<TcpStream>>>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    }
}

/// An error with its causes: tonic's own text is only "transport error".
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![describe(error)];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = describe(error);
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

/// In our own words, if it is about who answered.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let refused = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(peer_error);
    refused.map_or_else(|| error.to_string(), ToString::to_string)
}
