//! A connection to the collector, with TLS where its URL says `https`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::bootstrap::{Otlp, OtlpProtocol};

/// Opens connections to one collector.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct Dial {
    tls: Option<Arc<ClientConfig>>,
    is_https: bool,
    host: String,
    port: u16,
}

impl Dial {
    pub(super) fn new(otlp: &Otlp, tls: Option<Arc<ClientConfig>>) -> Self {
        let is_https = otlp.endpoint.scheme_str() == Some("https");
        let port = match (otlp.protocol, is_https) {
            (OtlpProtocol::Grpc, _) => 4317,
            (OtlpProtocol::Http, true) => 443,
            (OtlpProtocol::Http, false) => 80,
        };
        let host = otlp.endpoint.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = tls.filter(|_| is_https).map(|tls| {
            let mut tls = (*tls).clone();
            tls.alpn_protocols = match otlp.protocol {
                OtlpProtocol::Grpc => vec![b"h2".to_vec()],
                OtlpProtocol::Http => vec![b"http/1.1".to_vec()],
            };
            Arc::new(tls)
        });
        Self { tls, is_https, host, port: otlp.endpoint.port_u16().unwrap_or(port) }
    }

    async fn open(self) -> io::Result<TokioIo<Stream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let tls = match self.tls {
            Some(tls) => tls,
            None if self.is_https => return Err(io::Error::other("TLS is asked for, but was not set up")),
            None => return Ok(TokioIo::new(Stream::Plain(stream))),
        };
        let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}

/// An open connection.
#[derive(Debug)]
pub(in crate::telemetry) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $do:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $do,
            Self::Tls($stream) => $do,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
