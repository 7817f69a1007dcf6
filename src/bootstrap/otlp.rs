//! Where telemetry is pushed to, and how that is written.

use std::path::PathBuf;
use std::str::FromStr;

use http::{HeaderName, HeaderValue, Uri};

use super::BootstrapError;
use super::settings::Settings;
use super::value::ValueError;

/// An OpenTelemetry collector, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Its base: of OTLP/HTTP without `/v1/traces`. `http` or `https`.
    pub endpoint: Uri,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Fields of every export, such as a token. Their values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What it gets. Never empty.
    pub signals: Vec<OtlpSignal>,
    /// Certificates (PEM) that vouch for a collector behind `https`. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// What we are called there; empty: after our service account or workload.
    pub service_name: String,
}

impl Otlp {
    /// Does it get this?
    pub fn wants(&self, signal: OtlpSignal) -> bool {
        self.signals.contains(&signal)
    }
}

/// A transport of OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC, usually port 4317.
    #[default]
    Grpc,
    /// Protobuf by POST, usually port 4318.
    Http,
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpSignal {
    /// Spans of requests.
    Traces,
    /// What `/metrics` shows.
    Metrics,
    /// The access log.
    Logs,
}

/// A field: `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OtlpHeader(HeaderName, HeaderValue);

impl FromStr for OtlpProtocol {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http" | "http/protobuf" => Ok(Self::Http),
            _ => Err(ValueError::OtlpProtocol(text.to_owned())),
        }
    }
}

impl FromStr for OtlpSignal {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "traces" => Ok(Self::Traces),
            "metrics" => Ok(Self::Metrics),
            "logs" => Ok(Self::Logs),
            _ => Err(ValueError::OtlpSignal(text.to_owned())),
        }
    }
}

impl FromStr for OtlpHeader {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or(ValueError::OtlpHeader)?;
        let name = name.trim().parse().map_err(|_invalid| ValueError::OtlpHeader)?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_invalid| ValueError::OtlpHeader)?;
        value.set_sensitive(true);
        Ok(Self(name, value))
    }
}

pub(super) fn build(settings: &Settings) -> Result<Option<Otlp>, BootstrapError> {
    let Some(endpoint) = settings.otlp_endpoint.as_deref() else {
        // All others may come from variables that are meant for the application.
        return match settings.otlp_signals {
            Some(_) => Err(BootstrapError::Needs { name: "otlp-signals", needs: "--otlp-endpoint" }),
            None => Ok(None),
        };
    };
    let problem = "must be a URL as http://127.0.0.1:4317 or https://collector:4317";
    let wrong = || BootstrapError::Range { name: "otlp-endpoint", problem };
    let endpoint: Uri = endpoint.parse().map_err(|_invalid| wrong())?;
    if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let signals = settings.otlp_signals.clone().unwrap_or_else(|| vec![OtlpSignal::Traces]);
    if signals.is_empty() {
        return Err(BootstrapError::Range { name: "otlp-signals", problem: "must not be empty" });
    }
    let headers = settings.otlp_headers.clone().unwrap_or_default();
    Ok(Some(Otlp {
        endpoint,
        protocol: settings.otlp_protocol.unwrap_or_default(),
        headers: headers.into_iter().map(|OtlpHeader(name, value)| (name, value)).collect(),
        signals,
        ca: settings.otlp_ca.clone(),
        service_name: settings.otlp_service_name.clone().unwrap_or_default(),
    }))
}
