//! Start-up settings: flags, or environment variables of the same name.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use pillion_wire::spiffe::TrustDomain;

/// The Pillion control plane: configuration and certificates for sidecars.
#[derive(Clone, Debug, Parser)]
#[command(name = "pillion-control-plane", version)]
pub struct Settings {
    /// Directory of YAML documents: Service, Workload, HTTPRoute, GRPCRoute, TCPRoute, TLSRoute.
    #[arg(long, env = "PILLION_CONTROL_PLANE_CONFIG")]
    pub config: PathBuf,
    /// Where sidecars connect: xDS and certificates over TLS. Port 0 takes a free one.
    #[arg(long, env = "PILLION_CONTROL_PLANE_LISTEN", default_value = "127.0.0.1:15010")]
    pub listen: SocketAddr,
    /// Folder of the mesh's keys; made on first start. Keep it secret.
    #[arg(long, env = "PILLION_CONTROL_PLANE_STATE")]
    pub state: PathBuf,
    /// Where the admin pages are served. Keep it local.
    #[arg(long, env = "PILLION_CONTROL_PLANE_ADMIN", default_value = "127.0.0.1:15014")]
    pub admin: SocketAddr,
    /// Where the dashboard is served, or `off`; port 0 takes a free one. An address other than this machine's own needs
    /// --dashboard-token-file [default: 127.0.0.1:15016, or a free port when that is taken]
    #[arg(long, env = "PILLION_CONTROL_PLANE_DASHBOARD", value_name = "ADDRESS|off")]
    pub dashboard: Option<DashboardAddress>,
    /// File with the token that the dashboard is opened with (0600, at least 16 characters). Without one a token is made
    /// at each start, and told once, in the URL of the line on standard output.
    #[arg(long, env = "PILLION_CONTROL_PLANE_DASHBOARD_TOKEN_FILE", value_name = "FILE")]
    pub dashboard_token_file: Option<PathBuf>,
    /// How often clients report their load (LRS), as 5s; shorter than 1s is for tests.
    #[arg(long, env = "PILLION_CONTROL_PLANE_LOAD_INTERVAL", default_value = "5s", value_parser = duration)]
    pub load_interval: Duration,
    /// Trust domain of the mesh's identities.
    #[arg(long, env = "PILLION_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// The longest lifetime of a workload's certificate, as 24h, 30m or 10s.
    #[arg(long, env = "PILLION_CONTROL_PLANE_MAX_CERTIFICATE_LIFETIME", default_value = "24h", value_parser = duration)]
    pub max_certificate_lifetime: Duration,
    /// OpenTelemetry collector that gets spans of what is pushed and signed, as http://127.0.0.1:4317.
    #[arg(long, env = "PILLION_CONTROL_PLANE_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// How the collector is spoken to: grpc, or http/protobuf.
    #[arg(long, env = "PILLION_CONTROL_PLANE_OTLP_PROTOCOL", default_value = "grpc")]
    pub otlp_protocol: String,
    /// What to log, as `tracing` filters say it: info, debug, pillion_control_plane=debug.
    #[arg(long, env = "PILLION_CONTROL_PLANE_LOG", default_value = "info")]
    pub log: String,
}

/// Where the dashboard is, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DashboardAddress {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl std::str::FromStr for DashboardAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::At) }
    }
}

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration such as 24h, 30m, 10s or 500ms, greater than 0")]
pub struct DurationError(String);

/// Reads a whole number and a unit.
fn duration(text: &str) -> Result<Duration, DurationError> {
    let fail = || DurationError(text.to_owned());
    let digits = text.find(|character: char| !character.is_ascii_digit());
    let (number, unit) = text.split_at_checked(digits.unwrap_or(text.len())).ok_or_else(fail)?;
    let number: u64 = number.parse().map_err(|_| fail())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(fail()),
    };
    let millis = number.checked_mul(millis).filter(|millis| *millis > 0).ok_or_else(fail)?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "0s", "5", "h", "-1s", "1.5h", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
