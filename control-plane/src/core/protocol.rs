//! What an application speaks on a port, and how documents say so.
//!
//! The sources, strongest first: the `appProtocol` of the Service port, the
//! `protocol` of the Workload port, then the prefix of a port name as Istio and
//! Linkerd read it. Where nothing is said the port is [`Protocol::Auto`].

/// What an application speaks on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS.
    H2c,
    /// gRPC, which is HTTP/2 without TLS.
    Grpc,
    /// Bytes that nobody looks into.
    Tcp,
    /// TLS that the application speaks itself: nobody looks into it either, but who
    /// is meant can be read in the clear (SNI).
    Tls,
    /// HTTP in the version that the client speaks, or TCP.
    #[default]
    Auto,
}

impl Protocol {
    /// The protocol that an `appProtocol` names. `None` for names unknown here.
    #[must_use]
    pub fn from_app_protocol(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Some(Self::Http),
            "kubernetes.io/h2c" | "h2c" | "http2" => Some(Self::H2c),
            "grpc" => Some(Self::Grpc),
            "tcp" => Some(Self::Tcp),
            "tls" | "https" | "kubernetes.io/wss" => Some(Self::Tls),
            _ => None,
        }
    }

    /// The protocol that a port name's prefix, up to the first `-`, names.
    #[must_use]
    pub fn from_port_name(name: &str) -> Option<Self> {
        let prefix = name.split('-').next().unwrap_or_default();
        match prefix.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "http2" | "h2c" => Some(Self::H2c),
            "grpc" => Some(Self::Grpc),
            "tcp" => Some(Self::Tcp),
            "tls" | "https" => Some(Self::Tls),
            _ => None,
        }
    }

    /// The protocol that `protocol` of a Workload port names.
    #[must_use]
    pub fn from_workload(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "h2c" => Some(Self::H2c),
            "grpc" => Some(Self::Grpc),
            "tcp" => Some(Self::Tcp),
            "tls" => Some(Self::Tls),
            _ => None,
        }
    }

    /// Its name in documents and in the names of filter chains.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Auto => "auto",
        }
    }

    /// Whether requests may be routed by their HTTP parts.
    #[must_use]
    pub const fn carries_http(self) -> bool {
        !matches!(self, Self::Tcp | Self::Tls)
    }

    /// Whether plain byte streams may be carried.
    #[must_use]
    pub const fn carries_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Auto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes() {
        for (text, expected) in [
            ("http", Some(Protocol::Http)),
            ("http-admin", Some(Protocol::Http)),
            ("http2", Some(Protocol::H2c)),
            ("grpc-api", Some(Protocol::Grpc)),
            ("tcp-ledger", Some(Protocol::Tcp)),
            ("https", Some(Protocol::Tls)),
            ("tls-api", Some(Protocol::Tls)),
            ("httpish", None),
            ("web", None),
        ] {
            assert_eq!(Protocol::from_port_name(text), expected, "{text}");
        }
        for (text, expected) in [
            ("kubernetes.io/h2c", Some(Protocol::H2c)),
            ("HTTP", Some(Protocol::Http)),
            ("tcp", Some(Protocol::Tcp)),
            ("tls", Some(Protocol::Tls)),
            ("https", Some(Protocol::Tls)),
            ("kubernetes.io/wss", Some(Protocol::Tls)),
            ("mysql", None),
        ] {
            assert_eq!(Protocol::from_app_protocol(text), expected, "{text}");
        }
    }
}
