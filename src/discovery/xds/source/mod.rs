//! The task that keeps us up to date: connects, feeds `delta` and `assemble`, publishes, and begins anew when it ends.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

use super::client::{self, AdsStream, Event, OpenError};
use super::delta::{self, Delta};
use super::kept::{self, Kept};
use super::load;
use crate::backoff::Backoff;
use crate::discovery::assemble::{Assembly, Subscription};
use crate::discovery::names::Names;
use crate::discovery::source::{ConfigSource, Context};
use crate::discovery::{Change, Kind, Update};
use crate::snapshot::{Demand, Inbound};
use crate::tls::control::ControlError;

/// Incremental ADS.
pub(in crate::discovery) struct Xds;

impl ConfigSource for Xds {
    fn name(&self) -> &'static str {
        "xds"
    }

    fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Infallible> + Send>> {
        Box::pin(run(context))
    }
}

async fn run(context: Context) -> Infallible {
    let mut task = Task {
        delta: Delta::new(context.bootstrap.node().to_node()),
        assembly: Assembly::new(
            context.bootstrap.mesh,
            context.bootstrap.intercept.is_some(),
            context.bootstrap.timeouts.destination_idle,
        ),
        kept: context.store.clone().map(|store| Kept::new(store, Arc::clone(&context.metrics))),
        names: Names::new(context.naming.clone()),
        unsent: load::Unsent::new(&context),
        context,
        demand_closed: false,
    };
    let (mut backoff, mut refusals) = (Backoff::default(), 0_u32);
    task.publish();
    task.recall().await;
    loop {
        match task.session(refusals).await {
            Outcome::Answered => (refusals, backoff) = (0, Backoff::default()),
            Outcome::Accepted => refusals = 0,
            Outcome::Refused => refusals = refusals.saturating_add(1),
            Outcome::Unreachable => {}
        }
        task.context.metrics.xds_connected(false);
        task.context.link.send_replace(None);
        task.assembly.handle_connection(false);
        let wait = backoff.next(rand::random());
        tracing::debug!(?wait, "next attempt to reach the control plane");
        task.meanwhile(sleep(wait)).await;
    }
}

/// How far a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nobody was there.
    Unreachable,
    /// It ended before the stream was accepted: perhaps because of who we said we are.
    Refused,
    /// The stream was accepted.
    Accepted,
    /// It carried at least one response.
    Answered,
}

struct Task {
    context: Context,
    delta: Delta,
    assembly: Assembly,
    kept: Option<Kept>,
    names: Names,
    unsent: Arc<load::Unsent>,
    demand_closed: bool,
}

impl Task {
    /// Puts in force what was kept on disk, until the control plane has been reached.
    async fn recall(&mut self) {
        let Some(kept) = &self.kept else { return };
        let (store, before) = (kept.store(), Instant::now());
        let found = tokio::task::spawn_blocking(move || kept::read(&store)).await.unwrap_or_default();
        let listeners = found.iter().filter(|(kind, _)| **kind == Kind::Listener).flat_map(|(_, all)| all);
        for demand in listeners.filter_map(|listener| Demand::of_listener(&listener.name)) {
            self.assembly.handle_demand(demand, before);
        }
        self.publish();
        let mut resources = 0;
        // Each kind says which resources of the next are wanted.
        for (kind, found) in found {
            let names: Vec<String> = found.iter().map(|resource| resource.name.clone()).collect();
            let response = delta::response(kind, found);
            let received = self.delta.handle_response(response);
            resources += received.accepted.len();
            for (kind, resource) in &received.accepted {
                self.context.ledger.accepted(*kind, &resource.name, resource.version.clone(), SystemTime::now());
            }
            for update in received.updates {
                self.assembly.handle_update(update, before);
            }
            self.publish();
            let used: BTreeSet<&str> = received.accepted.iter().map(|(_, resource)| resource.name.as_str()).collect();
            for name in names.iter().filter(|name| !used.contains(name.as_str())) {
                self.forget(kind, name); // Of no use to anything that was kept.
            }
        }
        if resources > 0 {
            tracing::info!(resources, took = ?before.elapsed(), "configuration found on disk, in force until the control plane is reached");
            self.live_on_kept(true);
            if self.context.bootstrap.mesh.is_none() {
                self.context.inbound.publish(Some(Inbound::default()));
            }
        }
    }

    fn live_on_kept(&self, is_so: bool) {
        self.context.metrics.configuration_recalled(is_so);
        if let Some(kept) = &self.kept {
            kept.set_in_use(is_so);
        }
    }

    fn forget(&self, kind: Kind, name: &str) {
        if let Some(kept) = &self.kept {
            kept.forget(kind, name);
        }
    }

    /// One connection, from its beginning to its end.
    async fn session(&mut self, refusals: u32) -> Outcome {
        let bootstrap = Arc::clone(&self.context.bootstrap);
        let identity = self.context.identity.load_full();
        let opening = pin!(client::open(&bootstrap, Option::as_ref(&identity), refusals));
        match self.meanwhile(opening).await {
            Ok(stream) => {
                self.delta.handle_stream_start();
                self.drive(stream).await
            }
            Err(error) => {
                let (result, outcome) = match &error {
                    OpenError::Control(ControlError::Handshake { .. } | ControlError::Http { .. }) => {
                        ("handshake", Outcome::Refused)
                    }
                    OpenError::Control(_) => ("unreachable", Outcome::Unreachable),
                    OpenError::Credentials(_) | OpenError::Token(_) => ("credentials", Outcome::Refused),
                };
                self.context.metrics.xds_connect(result);
                tracing::warn!(%error, "the control plane cannot be reached; what is known stays in force");
                outcome
            }
        }
    }

    /// Exchanges requests and responses until the stream ends.
    async fn drive(&mut self, mut stream: AdsStream) -> Outcome {
        let sender = stream.sender();
        let mut reports = None;
        let mut outcome = Outcome::Refused;
        let mut request = None;
        loop {
            let _until_the_stream_ends = &reports;
            request = request.or_else(|| self.delta.poll_request());
            let expiry = self.assembly.poll_time();
            tokio::select! {
                permit = sender.reserve(), if request.is_some() => {
                    // A closed queue means that the stream has ended: reading it says why.
                    if let (Ok(permit), Some(request)) = (permit, request.take()) {
                        permit.send(request);
                    }
                }
                event = stream.next() => match event {
                    Ok(Event::Opened) => {
                        outcome = outcome.max(Outcome::Accepted);
                        self.context.link.send_replace(Some(stream.link()));
                        self.opened();
                        reports = load::begin(&self.unsent, stream.link());
                    }
                    Ok(Event::Response(response)) => {
                        outcome = Outcome::Answered;
                        self.received(*response);
                    }
                    Ok(Event::Closed) => {
                        tracing::info!("the control plane closed the stream; what is known stays in force");
                        return outcome;
                    }
                    Err(status) => {
                        self.failed(&status, outcome);
                        return outcome;
                    }
                },
                demand = self.context.demand.recv(), if !self.demand_closed => self.demanded(demand),
                update = self.names.next() => self.found(update),
                () = sleep_until(expiry.unwrap_or_else(far_away)), if expiry.is_some() => self.expired(),
            }
        }
    }

    /// Answers demand while `other` is waited for. Nothing expires meanwhile: that an address is none of the mesh is
    /// worth knowing for as long as nobody can be asked again.
    async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                output = &mut other => return output,
                demand = self.context.demand.recv(), if !self.demand_closed => self.demanded(demand),
                update = self.names.next() => self.found(update),
            }
        }
    }

    fn opened(&mut self) {
        tracing::info!(control_plane = self.context.bootstrap.control_plane.address, "connected to the control plane");
        self.context.metrics.xds_connect("ok");
        self.context.metrics.xds_connected(true);
        self.assembly.handle_connection(true);
        self.live_on_kept(false);
        let nothing_yet = self.context.inbound.load().is_none();
        if self.context.bootstrap.mesh.is_none() && nothing_yet {
            self.context.inbound.publish(Some(Inbound::default()));
        }
    }

    fn received(&mut self, response: pillion_wire::xds::discovery::DeltaDiscoveryResponse) {
        let received = self.delta.handle_response(response);
        let time = SystemTime::now();
        let ledger = Arc::clone(&self.context.ledger);
        for ((kind, name, refusal), version) in received.refused.iter().zip(received.refused_versions) {
            ledger.refused(*kind, name, version, &refusal.to_string(), time);
            self.context.metrics.xds_resource(kind.label(), false);
            tracing::warn!(kind = kind.label(), name, %refusal, "configuration refused; the last good version stays");
        }
        for (kind, resource) in &received.accepted {
            ledger.accepted(*kind, &resource.name, resource.version.clone(), time);
        }
        if let Some(kept) = &self.kept {
            received.accepted.into_iter().for_each(|(kind, resource)| kept.keep(kind, resource));
        }
        let now = Instant::now();
        for update in received.updates {
            self.context.metrics.xds_resource(update.kind.label(), true);
            if update.change == Change::Removed {
                ledger.removed(update.kind, &update.name, time);
                self.forget(update.kind, &update.name);
            }
            self.assembly.handle_update(update, now);
        }
        self.publish();
    }

    fn failed(&self, status: &Status, outcome: Outcome) {
        let result = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => "refused",
            _ => "broken",
        };
        if outcome == Outcome::Refused {
            self.context.metrics.xds_connect(result);
        }
        tracing::warn!(
            code = ?status.code(),
            message = status.message(),
            "the stream from the control plane broke; what is known stays in force"
        );
    }

    fn demanded(&mut self, demand: Option<Demand>) {
        let Some(demand) = demand else {
            self.demand_closed = true;
            return;
        };
        if !self.assembly.handle_demand(demand, Instant::now()) {
            self.context.metrics.destination_refused();
        }
        self.publish();
    }

    /// Nameservers have said something new.
    fn found(&mut self, update: Update) {
        self.assembly.handle_update(update, Instant::now());
        self.publish();
    }

    fn expired(&mut self) {
        self.assembly.handle_time(Instant::now());
        self.publish();
    }

    /// Carries out what follows from the input so far.
    fn publish(&mut self) {
        let output = self.assembly.poll_output();
        for subscription in output.subscriptions {
            match subscription {
                Subscription::Begin(kind, name) => {
                    self.context.ledger.asked(kind, &name);
                    self.delta.subscribe(kind, &name);
                }
                Subscription::End(kind, name) => {
                    self.context.ledger.given_up(kind, &name);
                    self.delta.unsubscribe(kind, &name);
                    self.forget(kind, &name);
                }
                Subscription::Resolve(dns) => self.names.begin(dns),
                Subscription::Unresolve(key) => self.names.end(&key),
            }
        }
        if let Some(outbound) = output.outbound {
            self.context.outbound.publish(outbound);
        }
        if let Some(inbound) = output.inbound {
            self.context.inbound.publish(Some(inbound));
        }
    }
}

/// Stands in for "never" in a disabled branch.
fn far_away() -> Instant {
    Instant::now() + std::time::Duration::from_secs(86_400)
}

#[cfg(test)]
mod tests;
