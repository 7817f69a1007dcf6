//! Ready means: sockets are bound, an identity is issued, the first configuration is in force, and we are not stopping.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::proxy::Shared;
use crate::slot::Slot;
use crate::store::Store;

/// Front ports as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fronts {
    /// The first inbound configuration has been acted on.
    pub settled: bool,
    /// Open ones.
    pub open: Vec<SocketAddr>,
    /// Those that could not be opened, and why.
    pub failed: BTreeMap<SocketAddr, String>,
}

/// Answers whether this sidecar is ready, and if not, what is missing.
#[derive(Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
    fronts: Arc<Slot<Fronts>>,
    store: Option<Arc<Store>>,
}

impl Readiness {
    /// Looks at the parts that have to be there.
    pub fn new(shared: Arc<Shared>, fronts: Arc<Slot<Fronts>>, store: Option<Arc<Store>>) -> Self {
        Self { shared, fronts, store }
    }

    /// What is worth knowing although it is ready, or what is missing.
    ///
    /// # Errors
    /// The reason, for a person.
    pub fn check(&self) -> Result<&'static str, String> {
        if self.shared.drain.is_stopping() {
            return Err("stopping".to_owned());
        }
        if self.shared.identity.load().is_none() {
            return Err("waiting for the first certificate from the control plane".to_owned());
        }
        if self.shared.inbound.load().is_none() {
            return Err("waiting for the first configuration from the control plane".to_owned());
        }
        let fronts = self.fronts.load();
        if let Some((address, why)) = fronts.failed.first_key_value() {
            return Err(format!("cannot listen on {address}: {why}"));
        }
        if self.shared.settings.mesh.is_some() && !fronts.settled {
            return Err("opening ports in front of the application".to_owned());
        }
        if self.store.as_ref().is_some_and(|store| store.is_in_use()) {
            return Ok(", with the configuration found on disk: the control plane has not been reached yet");
        }
        Ok("")
    }

    /// Waits until ready.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn wait(&self) {
        let mut identity = self.shared.identity.subscribe();
        let mut inbound = self.shared.inbound.subscribe();
        let mut fronts = self.fronts.subscribe();
        while self.check().is_err() {
            // The slots live as long as we do.
            let _changed = tokio::select! {
                changed = identity.changed() => changed,
                changed = inbound.changed() => changed,
                changed = fronts.changed() => changed,
            };
        }
    }

    /// Open front ports: port to address.
    pub fn fronts(&self) -> serde_json::Value {
        let fronts = self.fronts.load();
        fronts
            .open
            .iter()
            .map(|address| (address.port().to_string(), address.to_string().into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}
