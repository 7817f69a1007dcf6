//! Where what `pillion run` and `pillion demo` start sends its telemetry.

use clap::Args;
use serde_json::{Map, Value};

/// Settings that are handed on.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Telemetry {
    /// OpenTelemetry collector that sidecars and control plane send traces to, as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL", help_heading = "Telemetry")]
    otlp_endpoint: Option<String>,
    /// How the collector is spoken to: grpc, or http/protobuf [default: grpc].
    #[arg(long, value_name = "PROTOCOL", requires = "otlp_endpoint", help_heading = "Telemetry")]
    otlp_protocol: Option<String>,
    /// What the collector gets: traces, metrics, logs; separated by commas [default: traces].
    #[arg(long, value_name = "SIGNAL", value_delimiter = ',', requires = "otlp_endpoint", help_heading = "Telemetry")]
    otlp_signals: Option<Vec<String>>,
    /// Share of traces that are sampled, as 1% [default: 1%]; those that fail or are slow are kept in any case.
    #[arg(long, value_name = "PERCENT", help_heading = "Telemetry")]
    trace_sampling: Option<String>,
}

impl Telemetry {
    /// Adds them to the bootstrap file of a sidecar.
    pub(crate) fn add_to(&self, settings: &mut Map<String, Value>) {
        let texts = [
            ("otlp_endpoint", &self.otlp_endpoint),
            ("otlp_protocol", &self.otlp_protocol),
            ("trace_sampling", &self.trace_sampling),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                settings.insert(key.to_owned(), value.clone().into());
            }
        }
        if let Some(signals) = &self.otlp_signals {
            settings.insert("otlp_signals".to_owned(), signals.clone().into());
        }
    }

    /// The same for the control plane, which sends its traces over HTTP without TLS.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Some(endpoint) = self.otlp_endpoint.as_ref().filter(|endpoint| endpoint.starts_with("http://")) else {
            return Vec::new();
        };
        let protocol = self.otlp_protocol.as_deref().unwrap_or("grpc");
        ["--otlp-endpoint", endpoint, "--otlp-protocol", protocol].map(str::to_owned).to_vec()
    }
}
