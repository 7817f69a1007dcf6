//! Making one connection to one host: TCP, then mutual TLS when a sidecar stands before it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Host;
use crate::error::ProxyError;
use crate::net::{Dialer, ReadAhead, Transport, race};
use crate::tls::TlsClient;
use crate::tls::verify::explained;

/// Connects to `host` within `deadline`, TLS included.
///
/// # Errors
/// Nothing has been sent to the application when this fails.
pub(super) async fn connect(
    dialer: &Dialer,
    tls: &TlsClient,
    host: &Host,
    deadline: Duration,
) -> Result<Transport, ProxyError> {
    let address = host.dial();
    let key = host.key();
    let attempt = async {
        if let Some(addresses) = host.ways() {
            return Box::pin(named(dialer, host, &addresses)).await; // Rare, and large.
        }
        if dialer.is_loop(address, key.via) {
            return Err(ProxyError::OwnPort(address.port()));
        }
        let tcp = dialer.dial(address, key.via).await.map_err(|source| ProxyError::Connect { address, source })?;
        let Some(mesh) = &key.mesh else { return Ok(Transport::Dialled(tcp)) };
        let config = tls.to(&mesh.identity).ok_or(ProxyError::NoIdentity)?;
        // An address as server name sends no SNI; the verifier asks for the SPIFFE id instead.
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(config).connect(name, ReadAhead::new(tcp)).await.map_err(|source| {
            ProxyError::UpstreamTls { address, expected: mesh.identity.clone(), source: explained(source) }
        })?;
        Ok(Transport::Originated(Box::new(stream)))
    };
    timeout(deadline, attempt).await.unwrap_or(Err(ProxyError::ConnectTimeout(address)))
}

/// Connects to one of the addresses of a host that is known by its name.
async fn named(dialer: &Dialer, host: &Host, addresses: &[SocketAddr]) -> Result<Transport, ProxyError> {
    let via = host.key().via;
    let others: Vec<SocketAddr> = addresses.iter().copied().filter(|to| !dialer.is_loop(*to, via)).collect();
    if others.is_empty() && !addresses.is_empty() {
        return Err(ProxyError::OwnPort(host.key().address.port()));
    }
    let dialled = race(&others, |address| dialer.dial(address, via)).await;
    let (address, tcp) = dialled.map_err(|(address, source)| match address {
        Some(address) => ProxyError::Connect { address, source },
        None => ProxyError::Connect { address: host.address(), source },
    })?;
    host.took(address);
    Ok(Transport::Dialled(tcp))
}

/// The same failure once more, for those who waited for the same connection.
pub(super) fn repeat(error: &ProxyError) -> ProxyError {
    let copy = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
    match error {
        ProxyError::Connect { address, source } => ProxyError::Connect { address: *address, source: copy(source) },
        ProxyError::UpstreamTls { address, expected, source } => {
            ProxyError::UpstreamTls { address: *address, expected: expected.clone(), source: copy(source) }
        }
        ProxyError::ConnectTimeout(address) => ProxyError::ConnectTimeout(*address),
        ProxyError::OwnPort(port) => ProxyError::OwnPort(*port),
        ProxyError::UpstreamReset { address, detail } => {
            ProxyError::UpstreamReset { address: *address, detail: detail.clone() }
        }
        ProxyError::UpstreamProtocol { address, detail } => {
            ProxyError::UpstreamProtocol { address: *address, detail: detail.clone() }
        }
        _ => ProxyError::NoIdentity,
    }
}
