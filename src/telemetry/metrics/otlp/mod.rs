//! Pushes metrics to an OpenTelemetry collector: what `/metrics` shows, now and then.
//!
//! Sums are cumulative, so a push that fails loses nothing but its moment: the next one says it all. One push is under way
//! at a time, cut into requests of at most [`POINTS`] points, each of which may take [`DEADLINE`].

mod convert;
mod send;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use pillion_wire::exposition::Family;
use rustls::ClientConfig;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::backoff::Backoff;
use crate::bootstrap::{Bootstrap, OtlpSignal};
use crate::telemetry::otlp::{OtlpError, resource};

/// Points in a request: with 4 MiB, collectors take at least that much (gRPC's default).
const POINTS: usize = 2000;
/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// What pushes metrics.
#[derive(Debug)]
pub struct Push {
    sender: send::Sender,
    resource: Resource,
    interval: Duration,
}

impl Push {
    /// `None`: there is no collector that wants metrics. `tls` is for one whose URL says `https`.
    ///
    /// # Errors
    /// When the collector's address is none.
    ///
    /// Must be called within a tokio runtime.
    pub fn new(settings: &Bootstrap, tls: Option<Arc<ClientConfig>>) -> Result<Option<Self>, OtlpError> {
        let Some(otlp) = settings.otlp.as_ref().filter(|otlp| otlp.wants(OtlpSignal::Metrics)) else {
            return Ok(None);
        };
        let sender = send::Sender::new(otlp, tls)?;
        let resource = convert::resource(&resource(settings));
        Ok(Some(Self { sender, resource, interval: settings.metrics.export_interval }))
    }

    /// Pushes what `all` says as often as the settings want until `stop`, and once more then.
    ///
    /// # Cancel safety
    /// A push that is under way is lost, which the next one makes up for.
    pub async fn run(mut self, metrics: &Metrics, all: impl Fn() -> Vec<Family>, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut is_last = false;
        while !is_last {
            // A dead collector is asked no more often than a living one.
            let pause = match backoff.failures() {
                0 => self.interval,
                _ => backoff.next(rand::random()).max(self.interval),
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => is_last = true,
            }
            match self.push(metrics, all()).await {
                Ok(()) => backoff.reset(),
                Err(failure) => {
                    let _counted = backoff.next(0.0);
                    tracing::warn!(failure, "metrics were not taken by the collector");
                }
            }
        }
    }

    async fn push(&mut self, metrics: &Metrics, all: Vec<Family>) -> Result<(), String> {
        for (part, points) in convert::metrics(all, metrics.started, SystemTime::now(), POINTS) {
            let request = convert::request(self.resource.clone(), part);
            let result = send(&mut self.sender, request).await;
            metrics.otlp("metrics", if result.is_ok() { "exported" } else { "failed" }).inc_by(points);
            result?;
        }
        Ok(())
    }
}

async fn send(sender: &mut send::Sender, request: ExportMetricsServiceRequest) -> Result<(), String> {
    match tokio::time::timeout(DEADLINE, sender.send(request)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_late) => Err(format!("no answer within {DEADLINE:?}")),
    }
}
