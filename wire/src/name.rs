//! Names of xDS resources, and the destinations that they stand for.
//!
//! A resource is asked for by name, and the name is all that both sides know
//! at first (gRFC A27). Four kinds of name exist:
//!
//! - outbound listeners: the destination as the application wrote it,
//!   `orders.shop:80` or `10.0.0.1:80`, see [`Destination`];
//! - inbound listeners: a prefix and the listening address, in the form of
//!   gRFC A36's `server_listener_resource_name_template`, see [`ListenerName`];
//! - host listeners: a prefix and a host name, whose addresses DNS answers with,
//!   see [`ListenerName::Host`];
//! - clusters, endpoints and routes: the port of a Service or of a single
//!   workload, see [`PortName`].
//!
//! Each has one spelling: parsing what was printed gives the same value, and
//! printing what was parsed gives the same text (for a host name: in lower
//! case, without the dot at its end).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::label::is_label;
use crate::text::{excerpt, serde_as_text};

/// Where an application wants to go: the key of an on-demand subscription.
///
/// Text form `host:port`, with brackets around an IPv6 address. Make one with
/// [`Destination::new`] or by parsing: the fields are public to be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// A host name in lower case without a dot at its end, or an IP address in
    /// its canonical form, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl Destination {
    /// A destination from a host name or IP address, with or without brackets
    /// around IPv6, and a port.
    ///
    /// Upper case is folded, one dot at the end is dropped, and an IPv4 address
    /// written as IPv6 (`::ffff:10.0.0.1`, as sockets of both families report
    /// it) becomes IPv4: these are spellings of one destination.
    ///
    /// # Errors
    /// When the host is neither a DNS name (RFC 1123, underscores allowed) nor
    /// an IP address, when it ends in a number without being an address (which
    /// resolvers read as IPv4 in octal, hexadecimal or short forms), or when
    /// the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, NameError> {
        if port == 0 {
            return Err(NameError::Port(excerpt(host)));
        }
        let host = canonical_host(host).ok_or_else(|| NameError::Host(excerpt(host)))?;
        Ok(Self { host, port })
    }

    /// The address, when the host is one rather than a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl From<SocketAddr> for Destination {
    /// The destination of an intercepted connection. A port of 0, which no
    /// connection has, is kept and will not parse back.
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_canonical().to_string(), port: address.port() }
    }
}

impl FromStr for Destination {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split_port(text)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(NameError::Host(excerpt(host)));
        }
        Self::new(host, port)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One port of a Service: the name of its cluster, of its endpoints and of its
/// routes. Text form `<service>.<namespace>:<port>`, as `payment.shop:80`; for a subset of its workloads
/// `<service>~<subset>.<namespace>:<port>`, as `payment~v2.shop:80`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// Name of the Service, a DNS label.
    pub service: String,
    /// Its namespace, a DNS label.
    pub namespace: String,
    /// The Service's own port (not the workload's), never 0.
    pub port: u16,
    /// A subset of its workloads, a DNS label. `None`: all of them.
    pub subset: Option<String>,
}

impl ServicePort {
    /// A port of `service` in `namespace`.
    ///
    /// # Errors
    /// When one of the names is not a DNS label, or the port is 0.
    pub fn new(service: &str, namespace: &str, port: u16) -> Result<Self, NameError> {
        if !is_label(service) || !is_label(namespace) {
            return Err(NameError::Service(excerpt(&format!("{service}.{namespace}"))));
        }
        if port == 0 {
            return Err(NameError::Port(format!("{service}.{namespace}")));
        }
        Ok(Self { service: service.to_owned(), namespace: namespace.to_owned(), port, subset: None })
    }

    /// The same for a subset of the Service's workloads.
    ///
    /// # Errors
    /// When its name is not a DNS label.
    pub fn of_subset(self, subset: &str) -> Result<Self, NameError> {
        if !is_label(subset) {
            return Err(NameError::Service(excerpt(&format!("{}~{subset}.{}", self.service, self.namespace))));
        }
        Ok(Self { subset: Some(subset.to_owned()), ..self })
    }
}

impl FromStr for ServicePort {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split_port(text)?;
        let (service, namespace) = host.split_once('.').ok_or_else(|| NameError::Service(excerpt(host)))?;
        match service.split_once('~') {
            Some((service, subset)) => Self::new(service, namespace, port)?.of_subset(subset),
            None => Self::new(service, namespace, port),
        }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subset {
            Some(subset) => write!(f, "{}~{subset}.{}:{}", self.service, self.namespace, self.port),
            None => write!(f, "{}.{}:{}", self.service, self.namespace, self.port),
        }
    }
}

/// What a cluster, its endpoints and its routes are named after.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortName {
    /// A port of a Service, as `payment.shop:80`.
    Service(ServicePort),
    /// A port of one workload, by its address: `10.0.0.5:8080`, `[fd00::5]:8080`,
    /// the text of the [`Destination`] that leads there. Never with port 0, a
    /// scope, or an IPv4 address written as IPv6.
    Workload(SocketAddr),
}

impl FromStr for PortName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let canonical = |address: &SocketAddr| Destination::from(*address).to_string() == text && address.port() != 0;
        match text.parse::<SocketAddr>() {
            Ok(address) if canonical(&address) => Ok(Self::Workload(address)),
            Ok(_) => Err(NameError::Address(excerpt(text))),
            Err(_) => text.parse().map(Self::Service),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(port) => port.fmt(f),
            Self::Workload(address) => Bare(*address).fmt(f),
        }
    }
}

/// The name of a `Listener` resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerName {
    /// What a workload calls; also the name that gRPC's `xds:///` targets use.
    Outbound(Destination),
    /// What a sidecar receives: named by its mesh address, see
    /// [`INBOUND_TEMPLATE`].
    Inbound(SocketAddr),
    /// What a proxyless gRPC server receives (gRFC A36): named by the address
    /// that it listens on, see [`GRPC_SERVER_TEMPLATE`].
    GrpcServer(SocketAddr),
    /// The addresses that DNS answers for a host name of the mesh, as
    /// `pillion/host?name=orders.shop`: a `Listener` that has nothing but
    /// `address` and `additional_addresses`, all with port 0. The host is as
    /// [`host_name`] returns it.
    Host(String),
}

impl FromStr for ListenerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(address) = text.strip_prefix(INBOUND_PREFIX) {
            return listening_address(address).map(Self::Inbound);
        }
        if let Some(address) = text.strip_prefix(GRPC_SERVER_PREFIX) {
            return listening_address(address).map(Self::GrpcServer);
        }
        if let Some(host) = text.strip_prefix(HOST_PREFIX) {
            return host_name(host).map(Self::Host);
        }
        text.parse().map(Self::Outbound)
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbound(destination) => destination.fmt(f),
            Self::Inbound(address) => write!(f, "{INBOUND_PREFIX}{}", Bare(*address)),
            Self::GrpcServer(address) => write!(f, "{GRPC_SERVER_PREFIX}{}", Bare(*address)),
            Self::Host(host) => write!(f, "{HOST_PREFIX}{host}"),
        }
    }
}

serde_as_text!(Destination, ServicePort, PortName, ListenerName);

/// Template of the names of inbound listeners, `%s` being the mesh address: the
/// form of gRFC A36's `server_listener_resource_name_template`.
pub const INBOUND_TEMPLATE: &str = "pillion/inbound?xds.resource.listening_address=%s";

/// Template of the names of proxyless gRPC servers' listeners, for the
/// `server_listener_resource_name_template` of a gRPC bootstrap file (gRFC A36).
pub const GRPC_SERVER_TEMPLATE: &str = "grpc/server?xds.resource.listening_address=%s";

const INBOUND_PREFIX: &str = "pillion/inbound?xds.resource.listening_address=";
const GRPC_SERVER_PREFIX: &str = "grpc/server?xds.resource.listening_address=";
const HOST_PREFIX: &str = "pillion/host?name=";

/// The one spelling of a host name: in lower case, without the dot at its end.
///
/// # Errors
/// When it is no DNS name (RFC 1123, underscores allowed), which an IP address
/// and what resolvers would read as one are not either.
pub fn host_name(text: &str) -> Result<String, NameError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if is_host_name(&name) { Ok(name) } else { Err(NameError::Name(excerpt(text))) }
}

/// Why a text is not the name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No port after the last colon, or not one from 1 to 65535 in plain digits.
    #[error("{0:?} needs a port from 1 to 65535, as in \"orders.shop:80\"")]
    Port(String),
    /// Neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address (IPv6 needs brackets)")]
    Host(String),
    /// Not a DNS name.
    #[error("{0:?} is not a DNS name")]
    Name(String),
    /// Not `<service>.<namespace>`.
    #[error("{0:?} is not of the form <service>.<namespace>")]
    Service(String),
    /// Not the address of a listener.
    #[error("{0:?} is not a listening address of the form IP:PORT")]
    Address(String),
}

/// A socket address without flow label and scope, which have no place in a
/// name.
struct Bare(SocketAddr);

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.0.ip(), self.0.port()).fmt(f)
    }
}

/// An address in its only spelling: names are compared as text on the way.
fn listening_address(text: &str) -> Result<SocketAddr, NameError> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && Bare(address).to_string() == text => Ok(address),
        _ => Err(NameError::Address(excerpt(text))),
    }
}

fn split_port(text: &str) -> Result<(&str, u16), NameError> {
    text.rsplit_once(':')
        .and_then(|(host, digits)| Some((host, plain_port(digits)?)))
        .ok_or_else(|| NameError::Port(excerpt(text)))
}

/// Digits alone: `u16::from_str` would also take `+80` and `0080`.
fn plain_port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}

fn canonical_host(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_canonical().to_string());
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(address.to_canonical().to_string());
    }
    host_name(host).ok()
}

/// RFC 1123 section 2.1 with underscores, which container names have; not
/// what a resolver would take for an IPv4 address (WHATWG URL, "ends in a
/// number").
fn is_host_name(name: &str) -> bool {
    let labels_are_good = name.split('.').all(|label| is_label(&label.replace('_', "x")));
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_decimal = last.bytes().all(|b| b.is_ascii_digit());
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    name.len() <= 253 && labels_are_good && !is_decimal && !is_hexadecimal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?";
    const HOST: &str = r"([a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?\.){0,4}[a-w]([a-z0-9-]{0,20}[a-z])?";

    /// Ports, with the ends of the range often.
    fn port() -> impl Strategy<Value = u16> {
        prop_oneof![Just(1), Just(80), Just(u16::MAX), 1..=u16::MAX]
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), port()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn host_destinations_round_trip(host in HOST, port in port()) {
            let destination = Destination::new(&host, port).unwrap();
            prop_assert_eq!(&destination.host, &host);
            prop_assert_eq!(destination.to_string(), format!("{host}:{port}"));
            prop_assert_eq!(destination.to_string().parse(), Ok(destination.clone()));
            prop_assert_eq!(destination.ip(), None);
            let shouted = format!("{}.:{port}", host.to_ascii_uppercase());
            prop_assert_eq!(shouted.parse(), Ok(destination));
        }

        #[test]
        fn address_destinations_round_trip(address in address()) {
            let destination = Destination::from(address);
            prop_assert_eq!(destination.to_string().parse(), Ok(destination.clone()));
            prop_assert_eq!(address.to_string().parse(), Ok(destination.clone()));
            prop_assert_eq!(destination.ip(), Some(address.ip().to_canonical()));
        }

        #[test]
        fn service_ports_round_trip(service in LABEL, namespace in LABEL, port in port()) {
            let name = ServicePort::new(&service, &namespace, port).unwrap();
            prop_assert_eq!(name.to_string(), format!("{service}.{namespace}:{port}"));
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn listener_names_round_trip(address in address(), host in HOST) {
            for name in [
                ListenerName::Inbound(address),
                ListenerName::GrpcServer(address),
                ListenerName::Outbound(Destination::new(&host, address.port()).unwrap()),
                ListenerName::Outbound(address.into()),
                ListenerName::Host(host.clone()),
            ] {
                prop_assert_eq!(name.to_string().parse(), Ok(name.clone()));
                let json = serde_json::to_string(&name).unwrap();
                prop_assert_eq!(serde_json::from_str::<ListenerName>(&json).unwrap(), name);
            }
        }

        #[test]
        fn whatever_parses_is_canonical_once_printed(
            text in prop_oneof![
                ".{0,60}",
                r"[\[\]a-zA-Z0-9._:%-]{0,24}:[0-9+]{0,6}",
                r"pillion/host\?name=[a-zA-Z0-9._-]{0,20}",
                r"(pillion/inbound|grpc/server)\?xds.resource.listening_address=[\[\]0-9a-fA-F.:%]{0,20}(:[0-9]{1,5})?",
            ]
        ) {
            if let Ok(name) = text.parse::<ListenerName>() {
                prop_assert_eq!(name.to_string().parse(), Ok(name));
            }
            if let Ok(name) = text.parse::<PortName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn spellings_of_one_destination_are_equal() {
        for (text, canonical) in [
            ("Orders.Shop:80", "orders.shop:80"),
            ("orders.shop.:80", "orders.shop:80"),
            ("[0:0::1]:80", "[::1]:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("my_db:5432", "my_db:5432"),
        ] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), canonical);
        }
        assert_eq!(Destination::new("::1", 80), Destination::new("[::1]", 80));
    }

    #[test]
    fn garbage_is_no_destination() {
        for text in [
            "",
            ":",
            ":80",
            "orders",
            "orders:",
            "orders:0",
            "orders:+80",
            "orders:080",
            "orders:65536",
            "orders:80 ",
            " orders:80",
            "or ders:80",
            "orders..shop:80",
            ".orders:80",
            ".:80",
            "-orders:80",
            "orders-:80",
            "orders/shop:80",
            "::1:80",
            "[::1]",
            "[::1:80",
            "::1]:80",
            "[]:80",
            "[10.0.0.1]:80",
            "[fe80::1%eth0]:80",
            "[::1].:80",
            "user@orders:80",
            "http://orders:80",
            "10.0.0:80",
            "010.0.0.1:80",
            "0x7f.1:80",
            "1.2.3.0x:80",
            "2130706433:80",
            "10.0.0.1.:80",
            "örders:80",
            "orders:８０",
            "*:80",
            "or\0ders:80",
            "orders:80\n",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text:?}");
        }
        assert!(Destination::new(&"a".repeat(64), 80).is_err());
        assert!(Destination::new(&["a"; 128].join("."), 80).is_err());
        assert!(Destination::new("orders", 0).is_err());
    }

    #[test]
    fn garbage_is_no_service_port() {
        for text in [
            "payment:80",
            "payment.:80",
            ".shop:80",
            "payment.shop",
            "payment.shop:0",
            "Payment.shop:80",
            "payment.shop.svc:80",
            "payment.sh_op:80",
            "payment~.shop:80",
            "payment~v1~v2.shop:80",
            "payment~V1.shop:80",
            "~v1.shop:80",
            "[::1]:80",
        ] {
            assert!(text.parse::<ServicePort>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ports_are_named_after_services_or_addresses() {
        let service = ServicePort::new("payment", "shop", 80).unwrap();
        let subset = service.clone().of_subset("v2").unwrap();
        assert_eq!(subset.to_string(), "payment~v2.shop:80");
        assert_eq!("payment~v2.shop:80".parse(), Ok(PortName::Service(subset)));
        assert_eq!("payment.shop:80".parse(), Ok(PortName::Service(service)));
        for text in ["10.0.0.5:8080", "[fd00::5]:8080"] {
            let name: PortName = text.parse().unwrap();
            assert_eq!(name, PortName::Workload(text.parse().unwrap()));
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text, "what leads there has that name too");
        }
        for text in
            ["10.0.0.5:0", "[::ffff:10.0.0.5]:80", "[fd00:0::5]:80", "[fe80::1%1]:80", "10.0.0.5:080", "10.0.0.5"]
        {
            assert!(text.parse::<PortName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_are_dns_names_in_one_spelling() {
        for text in ["pillion/host?name=Orders.Shop.", "pillion/host?name=orders.shop"] {
            let name: ListenerName = text.parse().unwrap();
            assert_eq!(name, ListenerName::Host("orders.shop".to_owned()));
            assert_eq!(name.to_string(), "pillion/host?name=orders.shop");
        }
        for host in ["", ".", "10.0.0.1", "[::1]", "::1", "a:80", "a b", "-a", "a..b", "1.2.3.0x7f", "*.shop", "a?b"] {
            assert!(format!("pillion/host?name={host}").parse::<ListenerName>().is_err(), "{host:?}");
        }
    }

    #[test]
    fn addresses_of_listeners_have_one_spelling() {
        for address in [
            "",
            "127.0.0.1",
            "127.0.0.1:0",
            "localhost:80",
            "127.0.0.1:080",
            "[0:0::1]:80",
            "[::1%3]:80",
            "[::1]:80/",
            "%s",
        ] {
            for template in [INBOUND_TEMPLATE, GRPC_SERVER_TEMPLATE] {
                let text = template.replace("%s", address);
                assert!(text.parse::<ListenerName>().is_err(), "{text:?}");
            }
        }
    }

    #[test]
    fn templates_make_the_names_that_listeners_have() {
        let address: SocketAddr = "[::1]:15008".parse().unwrap();
        let fill = |template: &str| template.replace("%s", &address.to_string());
        assert_eq!(fill(INBOUND_TEMPLATE), ListenerName::Inbound(address).to_string());
        assert_eq!(fill(GRPC_SERVER_TEMPLATE), ListenerName::GrpcServer(address).to_string());
    }
}
