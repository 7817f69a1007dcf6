//! `--port [SERVICE_PORT:]PORT[/PROTOCOL]`.

use std::{num::NonZeroU16, str::FromStr};

use pillion_control_plane::core::protocol::Protocol;
use serde::{Deserialize, Serialize};

/// A port of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Port {
    /// What callers dial.
    pub(super) service: NonZeroU16,
    /// Where the program listens.
    pub(super) program: NonZeroU16,
    /// What it speaks there, as a Service's `appProtocol` says it.
    pub(super) protocol: Option<String>,
}

/// A text that is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortError {
    /// Not a number.
    #[error(
        "`{0}` is not a port number, 1 to 65535; write [SERVICE_PORT:]PORT[/PROTOCOL], such as 8080 or 80:8080/http"
    )]
    Number(String),
    /// Not a protocol.
    #[error("`{0}` is not a protocol; write one of http, h2c, grpc, tcp, tls, or nothing to have it detected")]
    Protocol(String),
    /// Taken.
    #[error("the sidecar itself uses port {0}")]
    Reserved(NonZeroU16),
}

/// Ports of the sidecar inside the program's namespace, and the mesh port.
const RESERVED: [u16; 4] = [15001, 15006, 15008, 15053];

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (numbers, protocol) = match text.split_once('/') {
            Some((numbers, protocol)) => (numbers, Some(protocol)),
            None => (text, None),
        };
        if let Some(protocol) = protocol.filter(|protocol| Protocol::from_app_protocol(protocol).is_none()) {
            return Err(PortError::Protocol(protocol.to_owned()));
        }
        let (service, program) = numbers.split_once(':').unwrap_or((numbers, numbers));
        let number = |text: &str| text.parse().map_err(|_invalid| PortError::Number(text.to_owned()));
        let port = Self { service: number(service)?, program: number(program)?, protocol: protocol.map(str::to_owned) };
        if RESERVED.contains(&port.program.get()) {
            return Err(PortError::Reserved(port.program));
        }
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        let read = |text: &str| {
            let port: Port = text.parse().unwrap();
            (port.service.get(), port.program.get(), port.protocol)
        };
        assert_eq!(read("8080"), (8080, 8080, None));
        assert_eq!(read("80:8080"), (80, 8080, None));
        assert_eq!(read("80:8080/http"), (80, 8080, Some("http".to_owned())));
        assert_eq!(read("5432/tcp"), (5432, 5432, Some("tcp".to_owned())));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["", "0", "65536", "http", "80:", ":80", "80:80:80", "80/", "80/udp", "-1", "15008", "80:15001"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
    }
}
