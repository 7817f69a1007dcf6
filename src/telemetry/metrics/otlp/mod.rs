//! Pushes metrics to an OpenTelemetry collector: what `/metrics` shows, now and then.
//!
//! Sums are cumulative, so a push that fails loses nothing but its moment: the next one says it all. One push is under way
//! at a time, cut into requests of at most [`POINTS`] points, each of which may take [`DEADLINE`].

mod convert;
mod send;

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use pillion_wire::exposition::Family;
use tokio::time::sleep;

use super::Metrics;
use crate::backoff::Backoff;
use crate::bootstrap::{Otlp, OtlpSignal};

/// Points in a request: with 4 MiB, collectors take at least that much (gRPC's default).
const POINTS: usize = 2000;
/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

impl Metrics {
    /// Pushes what `all` says as often as the settings want, for as long as the program runs. Returns at once if there is no
    /// collector that wants metrics.
    ///
    /// # Cancel safety
    /// A push that is under way is lost, which the next one makes up for.
    pub async fn export(&self, otlp: Option<&Otlp>, all: impl Fn() -> Vec<Family>) {
        let Some(otlp) = otlp.filter(|otlp| otlp.wants(OtlpSignal::Metrics)) else { return };
        let interval = self.settings.export_interval;
        let mut sender = match send::Sender::new(otlp) {
            Ok(sender) => sender,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "metrics cannot be pushed to the collector");
                return self.exported("unsupported");
            }
        };
        let mut backoff = Backoff::default();
        loop {
            // A dead collector is asked no more often than a living one.
            sleep(if backoff.failures() == 0 { interval } else { backoff.next(rand::random()).max(interval) }).await;
            let resource = convert::resource(&self.about);
            let mut result = Ok(());
            for metrics in convert::metrics(all(), self.started, SystemTime::now(), POINTS) {
                let request = convert::request(resource.clone(), metrics);
                result = send(&mut sender, request).await;
                self.exported(result.as_ref().map_or_else(|failed| failed.0, |()| "ok"));
                if result.is_err() {
                    break;
                }
            }
            match result {
                Ok(()) => backoff.reset(),
                Err((reason, error)) => {
                    let _counted = backoff.next(0.0);
                    tracing::warn!(reason, error, "metrics were not taken by the collector");
                }
            }
        }
    }
}

async fn send(sender: &mut send::Sender, request: ExportMetricsServiceRequest) -> Result<(), (&'static str, String)> {
    match tokio::time::timeout(DEADLINE, sender.send(request)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(("failed", format!("{error:#}"))),
        Err(_late) => Err(("timeout", format!("no answer within {DEADLINE:?}"))),
    }
}
