//! Every resource there is, found by name, as one viewer may see it.
//!
//! Resources are made when first asked for and kept with the view that they came
//! from, so an edit costs the translation of what it changed and of nothing else.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use pillion_wire::{
    name::{Destination, ListenerName, PortName, ServicePort},
    origin::Origins,
    spiffe::{SpiffeId, TrustDomain},
    xds::{Any, pack, type_url},
};

use super::{
    dialect::Dialect,
    kind::Kind,
    translate::{cluster, endpoints, gateway, host, http_filters, inbound, outbound, route, session, treatment},
    version::version,
};
use crate::core::{
    mesh::Mesh,
    origin::Unhashed,
    service::Name,
    view::{PortView, WorkloadView},
};

/// Who looks: what a stream is authenticated as, and what its node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// The proven identity.
    pub identity: SpiffeId,
    /// The client's family.
    pub dialect: Dialect,
    /// The workload that the node says it is.
    pub workload: Option<String>,
    /// The zone that the node says it is in (`Node.locality`); else it is in that of its workload.
    pub zone: Option<String>,
    /// Where an Envoy wants its outbound listener.
    pub outbound_address: Option<SocketAddr>,
}

/// What stands under a name.
#[derive(Debug)]
pub enum Lookup {
    /// A resource.
    Found(Found),
    /// Nothing.
    Missing,
    /// Something that is not for this viewer: who owns it.
    Refused(Name),
}

/// A resource: its version at once, its body when it is needed.
#[derive(Debug)]
pub struct Found {
    version: Arc<str>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Ready(Any),
    Outbound { view: Arc<PortView>, name: String, dialect: Dialect },
    Inbound { view: Arc<WorkloadView>, name: String, address: SocketAddr, dialect: Dialect },
    Host { addresses: Box<[IpAddr]>, name: String },
}

impl Found {
    /// The hash of the content.
    #[must_use]
    pub const fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The resource itself.
    #[must_use]
    pub fn body(&self) -> Any {
        match &self.body {
            Body::Ready(any) => any.clone(),
            Body::Outbound { view, name, dialect } => {
                pack(type_url::LISTENER, &outbound::listener(view, name, *dialect))
            }
            Body::Inbound { view, name, address, dialect } => {
                pack(type_url::LISTENER, &inbound::listener(view, name, *address, *dialect))
            }
            Body::Host { addresses, name } => pack(type_url::LISTENER, &host::listener(name, addresses)),
        }
    }
}

/// Every resource of one state of the mesh.
#[derive(Debug)]
pub struct Catalog {
    mesh: Mesh,
    trust_domain: TrustDomain,
    ports: HashMap<ServicePort, Arc<Entry>>,
    singles: Arc<Singles>,
    outbound_routes: Mutex<HashMap<String, Built>>,
}

#[derive(Clone, Debug)]
struct Built {
    version: Arc<str>,
    any: Any,
}

/// The resources of single workloads' ports, which are made when somebody asks: any port may be asked for. Catalogs
/// share them, for what one made the next can mostly use.
#[derive(Debug, Default)]
struct Singles(Mutex<HashMap<SocketAddr, Arc<Entry>>>);

/// Ports of single workloads that are kept; beyond that all are made anew.
const MOST_SINGLES: usize = 8192;

/// Zones for which the endpoints of a port are kept; beyond that all are made anew.
const MOST_ZONES: usize = 256;

/// The resources of one port, per dialect.
#[derive(Debug)]
struct Entry {
    view: Arc<PortView>,
    built: [OnceLock<PortResources>; Dialect::COUNT],
    /// Endpoints in another order for each zone that callers are in, where their order matters.
    by_zone: Mutex<HashMap<(String, Dialect), Built>>,
}

#[derive(Debug)]
struct PortResources {
    listener: Arc<str>,
    route: Built,
    cluster: Built,
    endpoints: Built,
}

impl Catalog {
    /// A catalog without anything in it.
    #[must_use]
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self::new(Mesh::default(), trust_domain, None)
    }

    /// The catalog of `mesh`; what is equal in `previous` is kept.
    #[must_use]
    pub fn new(mesh: Mesh, trust_domain: TrustDomain, previous: Option<&Self>) -> Self {
        let ports = mesh
            .ports()
            .map(|(key, view)| {
                let kept =
                    previous.and_then(|catalog| catalog.ports.get(key)).filter(|entry| Arc::ptr_eq(&entry.view, view));
                let entry = kept.map_or_else(|| Arc::new(Entry::new(view)), Arc::clone);
                (key.clone(), entry)
            })
            .collect();
        let singles = previous.map(|catalog| Arc::clone(&catalog.singles)).unwrap_or_default();
        Self { mesh, trust_domain, ports, singles, outbound_routes: Mutex::new(HashMap::new()) }
    }

    /// The mesh that this is the catalog of.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// What `viewer` sees under `name`.
    #[must_use]
    pub fn find(&self, kind: Kind, name: &str, viewer: &Viewer) -> Lookup {
        if kind == Kind::Listener {
            return self.listener(name, viewer);
        }
        if kind == Kind::Route && name == gateway::NAME && viewer.dialect == Dialect::Envoy {
            return Lookup::Found(self.outbound_route(viewer));
        }
        let view = name.parse().ok().and_then(|name: PortName| self.mesh.named(&name));
        let Some(entry) = view.and_then(|view| self.entry(view)) else {
            return Lookup::Missing;
        };
        let resources = entry.resources(viewer.dialect, &self.trust_domain);
        let built = match kind {
            Kind::Cluster => &resources.cluster,
            Kind::Endpoints => match self.zone(viewer).filter(|_| entry.has_zones()) {
                Some(zone) => {
                    return Lookup::Found(entry.endpoints_for(zone, viewer.dialect, &self.trust_domain).found());
                }
                None => &resources.endpoints,
            },
            Kind::Route | Kind::Listener if !entry.view.protocol.carries_http() => {
                return Lookup::Missing;
            }
            Kind::Route | Kind::Listener => &resources.route,
        };
        Lookup::Found(built.found())
    }

    /// The names that `viewer` is sent when it asks for everything.
    #[must_use]
    pub fn wildcard(&self, kind: Kind, viewer: &Viewer) -> Vec<String> {
        match kind {
            // A sidecar asks for what it uses; everything is never meant.
            _ if viewer.dialect == Dialect::Pillion => Vec::new(),
            Kind::Cluster => self.mesh.ports().map(|(key, _)| key.to_string()).collect(),
            Kind::Listener if viewer.dialect == Dialect::Envoy => {
                viewer.outbound_address.map(|_| gateway::NAME.to_owned()).into_iter().collect()
            }
            Kind::Listener | Kind::Route | Kind::Endpoints => Vec::new(),
        }
    }

    /// Where `viewer` is.
    fn zone<'a>(&'a self, viewer: &'a Viewer) -> Option<&'a str> {
        let of_workload = || {
            let name = Name::new(viewer.identity.namespace(), viewer.workload.as_ref()?);
            self.mesh.workload(&name)?.zone.as_deref()
        };
        viewer.zone.as_deref().or_else(of_workload)
    }

    fn listener(&self, name: &str, viewer: &Viewer) -> Lookup {
        if name == gateway::NAME && viewer.dialect == Dialect::Envoy {
            return viewer.outbound_address.map_or(Lookup::Missing, |address| {
                Lookup::Found(Found {
                    version: version(&(gateway::NAME, address)).into(),
                    body: Body::Ready(pack(type_url::LISTENER, &gateway::listener(address))),
                })
            });
        }
        match name.parse() {
            Ok(ListenerName::Outbound(destination)) => self.outbound(&destination, name, viewer),
            Ok(ListenerName::Inbound(address)) => self.inbound(address, name, viewer),
            Ok(ListenerName::Host(host)) => self.host(&host, name, viewer),
            Ok(ListenerName::GrpcServer(_)) | Err(_) => Lookup::Missing,
        }
    }

    fn outbound(&self, destination: &Destination, name: &str, viewer: &Viewer) -> Lookup {
        let view = self
            .mesh
            .resolve(destination, viewer.identity.namespace())
            // gRPC refuses a listener that carries no HTTP.
            .filter(|view| viewer.dialect != Dialect::Grpc || view.protocol.carries_http());
        let Some(entry) = view.and_then(|view| self.entry(view)) else {
            return Lookup::Missing;
        };
        let resources = entry.resources(viewer.dialect, &self.trust_domain);
        Lookup::Found(Found {
            version: Arc::clone(&resources.listener),
            body: Body::Outbound { view: Arc::clone(&entry.view), name: name.to_owned(), dialect: viewer.dialect },
        })
    }

    /// What DNS answers, for sidecars: nobody else asks by such a name.
    fn host(&self, host: &str, name: &str, viewer: &Viewer) -> Lookup {
        let addresses = self.mesh.host_addresses(host, viewer.identity.namespace());
        match addresses.filter(|_| viewer.dialect == Dialect::Pillion) {
            Some(addresses) => Lookup::Found(Found {
                version: version(&("host", addresses)).into(),
                body: Body::Host { addresses: addresses.into(), name: name.to_owned() },
            }),
            None => Lookup::Missing,
        }
    }

    /// What was made of `view`, or will be.
    fn entry(&self, view: Arc<PortView>) -> Option<Arc<Entry>> {
        match &view.key {
            PortName::Service(key) => self.ports.get(key).map(Arc::clone),
            PortName::Workload(address) => Some(self.singles.entry(*address, view)),
        }
    }

    /// The inbound listener at `address`, for the workload that it belongs to.
    /// A sidecar bound to every address asks with an unspecified one and is known
    /// by its name and port.
    fn inbound(&self, address: SocketAddr, name: &str, viewer: &Viewer) -> Lookup {
        let own_name = || {
            let workload = viewer.workload.as_ref()?;
            Some(Name::new(viewer.identity.namespace(), workload))
        };
        let view = if address.ip().is_unspecified() {
            own_name()
                .and_then(|own| self.mesh.workload(&own))
                .filter(|view| view.mesh_address.port() == address.port())
        } else {
            self.mesh.workload_at(address)
        };
        let Some(view) = view else {
            return Lookup::Missing;
        };
        let own = view.name.namespace == viewer.identity.namespace()
            && view.service_account == viewer.identity.service_account()
            && viewer.workload.as_ref().is_none_or(|workload| *workload == view.name.name);
        if !own {
            return Lookup::Refused(view.name.clone());
        }
        Lookup::Found(Found {
            version: version(&(&**view, view.ports.iter().map(|port| &port.origins.0).collect::<Vec<_>>())).into(),
            body: Body::Inbound { view: Arc::clone(view), name: name.to_owned(), address, dialect: viewer.dialect },
        })
    }

    fn outbound_route(&self, viewer: &Viewer) -> Found {
        let namespace = viewer.identity.namespace();
        let mut cache = self.outbound_routes.lock();
        if let Some(built) = cache.get(namespace) {
            return built.found();
        }
        let views: Vec<_> =
            self.mesh.ports().map(|(key, view)| (key, view.protocol, &view.http, &view.policy)).collect();
        let built = Built {
            version: version(&(namespace, views)).into(),
            any: pack(type_url::ROUTE, &gateway::routes(&self.mesh, namespace)),
        };
        let found = built.found();
        cache.insert(namespace.to_owned(), built);
        found
    }
}

impl Singles {
    fn entry(&self, address: SocketAddr, view: Arc<PortView>) -> Arc<Entry> {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.get(&address).filter(|entry| entry.view == view) {
            return Arc::clone(entry);
        }
        if entries.len() >= MOST_SINGLES {
            entries.clear();
        }
        let entry = Arc::new(Entry::new(&view));
        entries.insert(address, Arc::clone(&entry));
        entry
    }
}

impl Built {
    fn found(&self) -> Found {
        Found { version: Arc::clone(&self.version), body: Body::Ready(self.any.clone()) }
    }
}

impl Entry {
    fn new(view: &Arc<PortView>) -> Self {
        Self { view: Arc::clone(view), built: [const { OnceLock::new() }; Dialect::COUNT], by_zone: Mutex::default() }
    }

    fn has_zones(&self) -> bool {
        self.view.policy.load_balancing.as_ref().is_some_and(|section| section.zones.is_some())
    }

    /// The endpoints for callers in `zone`.
    fn endpoints_for(&self, zone: &str, dialect: Dialect, trust_domain: &TrustDomain) -> Built {
        let mut by_zone = self.by_zone.lock();
        let build = || PortResources::endpoints(&self.view, Some(zone), dialect, trust_domain);
        // What nodes say of themselves takes no more room than this.
        if by_zone.len() >= MOST_ZONES {
            by_zone.clear();
        }
        by_zone.entry((zone.to_owned(), dialect)).or_insert_with(build).clone()
    }

    fn resources(&self, dialect: Dialect, trust_domain: &TrustDomain) -> &PortResources {
        // The array has a cell per dialect; the first is only named for totality.
        let [first, ..] = &self.built;
        let cell = self.built.get(dialect.index()).unwrap_or(first);
        cell.get_or_init(|| PortResources::build(&self.view, dialect, trust_domain))
    }
}

impl PortResources {
    fn build(view: &PortView, dialect: Dialect, trust_domain: &TrustDomain) -> Self {
        let key = &view.key;
        let secured = (dialect != Dialect::Pillion && view.in_mesh()).then(|| (cluster::accounts(view), trust_domain));
        let faults = dialect == Dialect::Grpc && http_filters::has_faults(view);
        let sessions = dialect == Dialect::Grpc && session::is_kept(view);
        let is_retried = treatment::is_retried(view);
        // Only our own sidecars are told where things come from.
        let lines = |origins: &Unhashed<Origins>| (dialect == Dialect::Pillion).then(|| origins.0.clone());
        let entries = view.http.iter().flatten().map(|entry| &entry.origins);
        let route_lines: Vec<_> = entries.chain([&view.origins]).filter_map(lines).collect();
        Self {
            listener: version(&(
                "listener",
                dialect,
                key,
                view.protocol,
                &view.tcp,
                &view.tls,
                &view.policy,
                (faults, sessions),
                lines(&view.origins),
            ))
            .into(),
            route: Built {
                version: version(&("route", dialect, key, &view.http, &view.policy, route_lines)).into(),
                any: pack(type_url::ROUTE, &route::configuration(view, dialect)),
            },
            cluster: Built {
                version: version(&(
                    "cluster",
                    dialect,
                    key,
                    view.protocol,
                    &view.policy,
                    secured,
                    is_retried,
                    &view.external,
                ))
                .into(),
                any: pack(type_url::CLUSTER, &cluster::cluster(view, dialect, trust_domain)),
            },
            endpoints: Self::endpoints(view, None, dialect, trust_domain),
        }
    }

    fn endpoints(view: &PortView, zone: Option<&str>, dialect: Dialect, trust_domain: &TrustDomain) -> Built {
        let visible: Vec<_> = endpoints::visible(view, dialect).collect();
        let order = view.policy.load_balancing.as_ref().and_then(|section| section.zones.as_ref());
        Built {
            version: version(&("endpoints", &view.key, visible, order, zone, trust_domain)).into(),
            any: pack(type_url::ENDPOINTS, &endpoints::assignment(view, zone, dialect, trust_domain)),
        }
    }
}
