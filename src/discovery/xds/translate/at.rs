//! Where in a message we are, and what to say when something there is wrong.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use pillion_wire::extension::{self, ExtensionError};
use pillion_wire::mesh::MeshError;
use pillion_wire::name::NameError;
use pillion_wire::origin::{ORIGIN_METADATA, Origins};
use pillion_wire::xds::core::config_source::ConfigSourceSpecifier;
use pillion_wire::xds::core::{Address, ConfigSource, Metadata, SocketAddress, address, socket_address};
use pillion_wire::xds::{Any, Duration, UnpackError};
use prost::Message;

/// A field that is wrong. Displays as `path: reason`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Refusal {
    /// Path of the field, such as `filter_chains[0].filters[1].name`.
    pub path: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Reason {
    /// It would change what happens to traffic, and we cannot do it.
    #[error("is not supported")]
    Unsupported,
    /// It is needed.
    #[error("is missing")]
    Missing,
    /// Its value makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The resource calls itself something else.
    #[error("is {0:?}, not the name that was asked for")]
    OtherName(String),
    /// Not a name.
    #[error("{0}")]
    Name(#[from] NameError),
    /// Our own metadata is wrong.
    #[error("{0}")]
    Mesh(#[from] MeshError),
    /// Metadata under a key of ours is not what belongs there.
    #[error("{0}")]
    Extension(#[from] ExtensionError),
    /// Not the message that belongs there.
    #[error("{0}")]
    Message(#[from] UnpackError),
    /// Not a regular expression, or too large a one.
    #[error("{0}")]
    Regex(#[from] regex::Error),
}

impl Refusal {
    /// A top-level field that is not supported.
    pub(crate) fn unsupported(field: &'static str) -> Self {
        At::ROOT.field(field).refuse(Reason::Unsupported)
    }

    /// A top-level field that is missing.
    pub(crate) fn missing(field: &'static str) -> Self {
        At::ROOT.field(field).refuse(Reason::Missing)
    }
}

/// A place in a message: a list that leads back to its root, so that no path is built unless it is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    parent: Option<&'a Self>,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Root,
    Field(&'static str),
    Index(usize),
}

impl<'a> At<'a> {
    pub(super) const ROOT: Self = Self { parent: None, step: Step::Root };

    pub(super) fn field(&'a self, name: &'static str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    pub(super) fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    pub(super) fn refuse(&self, reason: impl Into<Reason>) -> Refusal {
        Refusal { path: self.to_string(), reason: reason.into() }
    }

    pub(super) fn invalid(&self, problem: &'static str) -> Refusal {
        self.refuse(Reason::Invalid(problem))
    }

    /// `value`, which has to be there.
    pub(super) fn required<T>(&self, value: Option<T>) -> Result<T, Refusal> {
        value.ok_or_else(|| self.refuse(Reason::Missing))
    }

    /// `text`, which has to be there.
    pub(super) fn filled(&self, text: String) -> Result<String, Refusal> {
        if text.is_empty() { Err(self.refuse(Reason::Missing)) } else { Ok(text) }
    }

    /// Reports a field that is passed over because it changes nothing that we do.
    pub(super) fn passed_over(&self) {
        tracing::debug!(field = %self, "a field of the configuration is ignored");
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if self.parent.is_none_or(|parent| matches!(parent.step, Step::Root)) => {
                f.write_str(name)
            }
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Refuses those of the named fields that are set.
macro_rules! refuse {
    ($at:expr, $message:expr; $($field:ident),+ $(,)?) => {
        $(
            #[allow(deprecated, reason = "deprecated fields are refused, not used")]
            if $crate::discovery::xds::translate::at::is_set(&$message.$field) {
                return Err($at.field(stringify!($field)).refuse($crate::discovery::xds::translate::Reason::Unsupported));
            }
        )+
    };
}

/// Reports those of the named fields that are set.
macro_rules! pass_over {
    ($at:expr, $message:expr; $($field:ident),+ $(,)?) => {
        $(
            if $crate::discovery::xds::translate::at::is_set(&$message.$field) {
                $at.field(stringify!($field)).passed_over();
            }
        )+
    };
}

pub(super) use {pass_over, refuse};

pub(super) fn is_set<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

/// Unpacks `any`, and reports when it carries fields that this version does not know.
pub(super) fn unpack<M: Message + Default>(at: &At<'_>, url: &'static str, any: &Any) -> Result<M, Refusal> {
    let message: M = pillion_wire::xds::unpack(url, any).map_err(|error| at.refuse(error))?;
    let known = message.encoded_len();
    if known < any.value.len() {
        let bytes = any.value.len() - known;
        tracing::debug!(field = %at, url, bytes, "the configuration has fields that this version does not know");
    }
    Ok(message)
}

/// What a resource with this metadata comes from; nothing where nobody says.
pub(super) fn origins(at: &At<'_>, metadata: Option<&Metadata>) -> Result<Arc<Origins>, Refusal> {
    let found = metadata.map(|metadata| extension::get(metadata, ORIGIN_METADATA)).transpose();
    let found: Option<Option<Origins>> = found.map_err(|error| at.field("metadata").refuse(error))?;
    Ok(found.flatten().map(Arc::new).unwrap_or_default())
}

/// The resource has to call itself `wanted`.
pub(super) fn same_name(at: &At<'_>, wanted: &str, found: String) -> Result<String, Refusal> {
    if found == wanted { Ok(found) } else { Err(at.refuse(Reason::OtherName(found))) }
}

/// What is referred to has to come from the stream that refers to it.
pub(super) fn from_ads(at: &At<'_>, source: Option<&ConfigSource>) -> Result<(), Refusal> {
    match at.required(source)?.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        Some(_) => Err(at.refuse(Reason::Unsupported)),
        None => Err(at.refuse(Reason::Missing)),
    }
}

/// An IP address with a TCP port.
pub(super) fn socket_address(at: &At<'_>, address: Option<Address>) -> Result<std::net::SocketAddr, Refusal> {
    let (ip, port) = ip_and_port(at, at.required(address)?)?;
    let at = &at.field("socket_address");
    let at = &at.field("port_value");
    Ok(std::net::SocketAddr::new(ip, port_number(at, at.required(port)?)?))
}

/// An IP address alone: its port is 0.
pub(super) fn ip_address(at: &At<'_>, address: Address) -> Result<IpAddr, Refusal> {
    let (ip, port) = ip_and_port(at, address)?;
    let at = &at.field("socket_address");
    match port {
        None | Some(0) => Ok(ip),
        Some(_) => Err(at.field("port_value").invalid("has to be 0, for nothing listens there")),
    }
}

fn ip_and_port(at: &At<'_>, address: Address) -> Result<(IpAddr, Option<u32>), Refusal> {
    let Some(address::Address::SocketAddress(socket)) = address.address else {
        return Err(at.refuse(Reason::Unsupported));
    };
    let at = &at.field("socket_address");
    refuse!(at, socket; protocol, resolver_name, network_namespace_filepath);
    pass_over!(at, socket; ipv4_compat);
    let SocketAddress { address, port_specifier, .. } = socket;
    let ip = address.parse().map_err(|_cause| at.field("address").invalid("is no IP address"))?;
    match port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => Ok((ip, Some(port))),
        Some(socket_address::PortSpecifier::NamedPort(_)) => Err(at.field("named_port").refuse(Reason::Unsupported)),
        None => Ok((ip, None)),
    }
}

pub(super) fn port_number(at: &At<'_>, port: u32) -> Result<u16, Refusal> {
    u16::try_from(port).ok().filter(|&port| port != 0).ok_or_else(|| at.invalid("is no port from 1 to 65535"))
}

/// The longest `google.protobuf.Duration`, in seconds: 10,000 years. It can be added to any moment.
const MAX_SECONDS: u64 = 315_576_000_000;

/// A duration that is not negative.
pub(super) fn duration(at: &At<'_>, duration: Duration) -> Result<std::time::Duration, Refusal> {
    let seconds = u64::try_from(duration.seconds).ok().filter(|&seconds| seconds <= MAX_SECONDS);
    let nanos = u32::try_from(duration.nanos).ok().filter(|&nanos| nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(std::time::Duration::new(seconds, nanos)),
        _ => Err(at.invalid("is no duration")),
    }
}
