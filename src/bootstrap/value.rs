//! Values that settings are made of, and how they are written.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use pillion_wire::name::{Destination, NameError};
use serde::{Deserialize, Deserializer, de};

use super::access_log::{AccessLog, AccessLogFile, AccessLogFormat};
use super::otlp::{OtlpHeader, OtlpProtocol, OtlpSignal};
use super::traces::{MaybeSpan, Percent, TraceHeaders};

/// A local TCP port that leads to one destination: `127.0.0.1:9000=ledger.shop:7000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpBinding {
    /// Where the application connects to.
    pub listen: SocketAddr,
    /// Where that leads.
    pub destination: Destination,
}

/// How connections are redirected to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirection {
    /// By NAT: the application sees them come from us.
    Redirect,
    /// By TPROXY, inbound: the application sees the caller's address. Needs `CAP_NET_ADMIN`.
    Tproxy,
}

/// [`Redirection`], or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InterceptMode {
    Off,
    On(Redirection),
}

/// What becomes of intercepted connections to addresses that the control plane does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownDestinations {
    /// They go where the application meant, as they are (Istio: `ALLOW_ANY`).
    #[default]
    Pass,
    /// They are reset (Istio: `REGISTRY_ONLY`).
    Refuse,
}

/// A duration as text: `500ms`, `4s`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(Duration);

/// An address, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    Off,
    On(SocketAddr),
}

/// Something that is done or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnOff(bool);

impl OnOff {
    pub(super) fn is_on(self) -> bool {
        self.0
    }
}

impl FromStr for OnOff {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err(ValueError::OnOff(text.to_owned())),
        }
    }
}

/// Why a value is none.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// Not a duration.
    #[error("{0:?} is no duration: write it like 500ms, 4s, 5m, 1h30m or 1d")]
    Span(String),
    /// Not an address, nor off.
    #[error("{0:?} is neither IP:PORT nor \"off\"")]
    Switch(String),
    /// Not a local port with its destination.
    #[error("{0:?} is not of the form IP:PORT=HOST:PORT")]
    Binding(String),
    /// Not a destination.
    #[error("the destination is wrong: {0}")]
    Destination(#[from] NameError),
    /// Not a choice of what to log.
    #[error("{0:?} is none of off, errors, all, sampled (1 %) and sampled:N%")]
    AccessLog(String),
    /// Not a format of the access log.
    #[error("{0:?} is neither json nor text nor a format with %OPERATORS%")]
    AccessLogFormat(String),
    /// Not a place for the access log.
    #[error("the access log needs a path, stdout or stderr")]
    AccessLogFile,
    /// Something in a format of the access log is not known.
    #[error("the access log's format is wrong at {position}: {problem}")]
    LogFormat {
        /// Bytes before it.
        position: usize,
        /// What is wrong there.
        problem: String,
    },
    /// Not a way to intercept.
    #[error("{0:?} is none of off, redirect, tproxy")]
    Intercept(String),
    /// Not a transport of OTLP.
    #[error("{0:?} is neither grpc nor http/protobuf")]
    OtlpProtocol(String),
    /// Not a kind of telemetry.
    #[error("{0:?} is none of traces, metrics, logs")]
    OtlpSignal(String),
    /// Not a field. Its value may be a secret, so it is not repeated.
    #[error("a field of --otlp-headers is written NAME=VALUE")]
    OtlpHeader,
    /// Not a share.
    #[error("{0:?} is no share: write it like 1%, 0.1% or 100%")]
    Percent(String),
    /// Neither on nor off.
    #[error("{0:?} is neither on nor off")]
    OnOff(String),
    /// Not a way to treat fields of traces.
    #[error("{0:?} is none of auto, on, off")]
    TraceHeaders(String),
    /// Not a policy for unknown destinations.
    #[error("{0:?} is neither pass nor refuse")]
    UnknownDestinations(String),
}

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ValueError::Span(text.to_owned());
        let mut rest = text;
        let mut total = Duration::ZERO;
        loop {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let number: u32 = number.parse().map_err(|_cause| wrong())?;
            let unit = unit_of(unit).ok_or_else(wrong)?;
            total = unit.checked_mul(number).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            if tail.is_empty() {
                return Ok(Self(total));
            }
            rest = tail;
        }
    }
}

fn unit_of(text: &str) -> Option<Duration> {
    let milliseconds = match text {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(milliseconds))
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Switch {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::On).map_err(|_cause| ValueError::Switch(text.to_owned())),
        }
    }
}

impl Switch {
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::On(address) => Some(address),
        }
    }
}

impl FromStr for TcpBinding {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ValueError::Binding(text.to_owned());
        let (listen, destination) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Self { listen: listen.parse().map_err(|_cause| wrong())?, destination: destination.parse()? })
    }
}

impl FromStr for InterceptMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "redirect" => Ok(Self::On(Redirection::Redirect)),
            "tproxy" => Ok(Self::On(Redirection::Tproxy)),
            _ => Err(ValueError::Intercept(text.to_owned())),
        }
    }
}

impl FromStr for UnknownDestinations {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pass" => Ok(Self::Pass),
            "refuse" => Ok(Self::Refuse),
            _ => Err(ValueError::UnknownDestinations(text.to_owned())),
        }
    }
}

/// Reads a value from the same text as on the command line.
fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = ValueError>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

macro_rules! read_from_text {
    ($($kind:ty),+) => {
        $(impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from_text(from)
            }
        })+
    };
}

read_from_text!(
    OnOff,
    Span,
    Switch,
    TcpBinding,
    AccessLog,
    AccessLogFormat,
    AccessLogFile,
    InterceptMode,
    UnknownDestinations,
    OtlpProtocol,
    OtlpSignal,
    OtlpHeader,
    Percent,
    MaybeSpan,
    TraceHeaders
);
