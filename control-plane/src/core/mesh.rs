//! The mesh as a whole: every object put together into views.
//!
//! Compiling is linear in the number of objects: a Service looks at the workloads
//! that carry the rarest of its labels, never at all of them. A view that came
//! out equal to the one before keeps its `Arc`, so that what depends on it (its
//! resources, its versions) is not made again.
//!
//! What needs more than one object to be judged is judged here: a backend or
//! parent that does not exist, a mesh address that two workloads claim.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pillion_wire::{
    load_shedding::LoadShedding,
    name::{PortName, ServicePort},
    origin::{Origin, Origins},
    rate_limit::RateLimits,
};

use super::{
    address::Assigned,
    external::{External, ExternalPort, past_the_mesh},
    grant::Grant,
    origin::{Places, Unhashed},
    policy::{GlobalRateLimit, Policies, Subset, TrafficPolicy},
    protocol::Protocol,
    reach::{Reach, inside},
    route::{Route, RouteKind},
    said::Said,
    service::{ClusterIp, Name, Port, Service, Target},
    table,
    view::{Endpoint, InboundPort, PortView, WorkloadView},
    workload::{Workload, WorkloadPort},
};

/// The objects that a mesh is made of.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Services.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// Workloads.
    pub workloads: BTreeMap<Name, Arc<Workload>>,
    /// Routes of all kinds.
    pub routes: BTreeMap<(RouteKind, Name), Arc<Route>>,
    /// Grants.
    pub grants: Vec<Arc<Grant>>,
    /// Policies.
    pub policies: BTreeMap<Name, Arc<TrafficPolicy>>,
    /// Where they stand.
    pub places: Places,
}

/// The compiled mesh.
#[derive(Debug, Default)]
pub struct Mesh {
    ports: BTreeMap<ServicePort, Arc<PortView>>,
    hosts: BTreeMap<Name, Host>,
    virtual_addresses: HashMap<IpAddr, Name>,
    assigned: Assigned,
    reach: Reach,
    workloads: BTreeMap<Name, Arc<WorkloadView>>,
    by_mesh_address: HashMap<SocketAddr, Name>,
}

/// What DNS says of a Service.
#[derive(Debug, Default)]
struct Host {
    /// Its virtual addresses, or the addresses of the workloads of a headless one.
    addresses: Vec<IpAddr>,
    /// The workloads of a headless one by name.
    workloads: BTreeMap<String, Vec<IpAddr>>,
}

/// Something that only shows when objects are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object it concerns.
    pub subject: Subject,
    /// The field, as [`crate::document::path::FieldPath`] prints it.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// Whether the object had to be left out.
    pub refused: bool,
}

/// The object of a [`Finding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A Service.
    Service(Name),
    /// A Workload.
    Workload(Name),
    /// A route.
    Route(RouteKind, Name),
    /// A policy.
    Policy(Name),
}

impl Mesh {
    /// Puts `objects` together, keeping what is equal in `previous`.
    #[must_use]
    pub fn compile(objects: &Objects, previous: Option<&Self>) -> (Self, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut mesh = Self::default();
        let directory = Directory::new(objects);
        mesh.assigned = Assigned::new(objects, previous.map(|mesh| &mesh.assigned), &mut findings);
        let mut spoken = HashMap::new();
        let mut drafts = Vec::new();
        for service in objects.services.values() {
            let members = directory.members(service);
            for port in &service.ports {
                if let Ok(key) = service_port(service, port) {
                    note_external(service, &key, objects, &mut findings);
                    let draft = Draft::new(key, service, port, &members, &mut findings);
                    draft.note_protocols(&mut spoken);
                    drafts.push(draft);
                }
            }
            mesh.add_host(service, &members, &mut findings);
        }
        let policies = Policies::new(objects, &mut findings);
        let (mut limited, mut ages) = (Said::new("rateLimits"), Said::new("timeouts.connectionAge"));
        let (mut asking, mut shedding) = (Said::new("globalRateLimit"), Said::new("loadShedding"));
        let mut ruling = HashMap::new();
        let (counting, mut counted) = (rate_limit_services(objects), BTreeSet::new());
        Policies::check_subsets(objects, |service| directory.members(service), &mut findings);
        let tables = table::Tables::new(objects, &policies, &mut findings);
        for draft in drafts {
            let key = draft.key.clone();
            let members: Vec<_> = draft.members.iter().map(|(workload, port)| (&workload.name, port.port)).collect();
            if counting.contains(&key) {
                counted.extend(members.iter().copied());
            }
            for view in draft.subsets(&policies) {
                if let PortName::Service(key) = view.key.clone() {
                    let kept = previous.and_then(|mesh| mesh.ports.get(&key));
                    mesh.ports.insert(key, keep_equal(view, kept));
                }
            }
            let sections = policies.sections_of_port(draft.service, draft.port);
            for (workload, port) in &members {
                note_sections(ruling.entry((*workload, *port)).or_default(), &sections);
            }
            let view = draft.finish(&tables, &policies, sections);
            let policy = &view.policy;
            let age = policy.timeouts.as_ref().and_then(|timeouts| timeouts.connection_age.as_ref());
            limited.note(&key, &members, policy.rate_limits.as_ref(), &mut findings);
            asking.note(&key, &members, policy.global_rate_limit.as_ref(), &mut findings);
            shedding.note(&key, &members, policy.load_shedding.as_ref(), &mut findings);
            ages.note(&key, &members, age, &mut findings);
            let kept = previous.and_then(|mesh| mesh.ports.get(&key));
            mesh.ports.insert(key, keep_equal(view, kept));
        }
        for (workload, port) in counted {
            if asking.take_back(workload, port) {
                findings.push(Finding {
                    subject: Subject::Workload(workload.clone()),
                    path: "spec.ports".to_owned(),
                    reason: format!("port {port} serves a rate-limit service: globalRateLimit has no effect on it"),
                    refused: false,
                });
            }
        }
        mesh.add_workloads(
            objects,
            &Ports { spoken, limited, ages, asking, shedding, ruling },
            previous,
            &mut findings,
        );
        (mesh, findings)
    }

    /// The view of `name`, if there is such a Service or workload with such a port.
    #[must_use]
    pub fn named(&self, name: &PortName) -> Option<Arc<PortView>> {
        match name {
            PortName::Service(key) => self.port(key).map(Arc::clone),
            PortName::Workload(address) => self.reach.view(*address).map(Arc::new),
        }
    }

    /// The view of one port of a Service.
    #[must_use]
    pub fn port(&self, key: &ServicePort) -> Option<&Arc<PortView>> {
        self.ports.get(key)
    }

    /// All ports of all Services, in order.
    pub fn ports(&self) -> impl Iterator<Item = (&ServicePort, &Arc<PortView>)> {
        self.ports.iter()
    }

    /// The Service that has this virtual address.
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<&Name> {
        self.virtual_addresses.get(&address)
    }

    /// The addresses that DNS answers for each Service, in order of name.
    pub fn services(&self) -> impl Iterator<Item = (&Name, &[IpAddr])> {
        self.hosts.iter().map(|(name, host)| (name, host.addresses.as_slice()))
    }

    /// What DNS answers for the Service `name`, or for one workload of it when that is headless: the addresses
    /// in order, none when it has none. `None`: there is no such host.
    pub(super) fn addresses(&self, name: &Name, workload: Option<&str>) -> Option<&[IpAddr]> {
        let host = self.hosts.get(name)?;
        match workload {
            Some(workload) => host.workloads.get(workload).map(Vec::as_slice),
            None => Some(&host.addresses),
        }
    }

    /// The workload whose sidecar accepts mesh traffic at `address`.
    #[must_use]
    pub fn workload_at(&self, address: SocketAddr) -> Option<&Arc<WorkloadView>> {
        self.workloads.get(self.by_mesh_address.get(&address)?)
    }

    /// The workload of this name, when it is inside the mesh.
    #[must_use]
    pub fn workload(&self, name: &Name) -> Option<&Arc<WorkloadView>> {
        self.workloads.get(name)
    }

    /// All workloads inside the mesh, in order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<WorkloadView>> {
        self.workloads.values()
    }

    fn add_host(&mut self, service: &Service, members: &[&Workload], findings: &mut Vec<Finding>) {
        let mut host = match &service.cluster_ip {
            ClusterIp::Headless => {
                let all: BTreeSet<IpAddr> = members.iter().flat_map(|workload| workload.addresses()).collect();
                let own = |workload: &&Workload| (workload.name.name.clone(), workload.addresses().collect());
                Host { addresses: all.into_iter().collect(), workloads: members.iter().map(own).collect() }
            }
            ClusterIp::Given(addresses) => Host { addresses: addresses.clone(), ..Host::default() },
            ClusterIp::Automatic(_) => Host { addresses: self.assigned.of(&service.name).collect(), ..Host::default() },
        };
        if service.cluster_ip != ClusterIp::Headless {
            host.addresses.retain(|address| {
                let owner = self.virtual_addresses.entry(*address).or_insert_with(|| service.name.clone());
                if *owner != service.name {
                    findings.push(Finding {
                        subject: Subject::Service(service.name.clone()),
                        path: "spec.clusterIP".to_owned(),
                        reason: format!("{address} is already the address of Service {owner}, which keeps it"),
                        refused: false,
                    });
                }
                *owner == service.name
            });
        }
        self.hosts.insert(service.name.clone(), host);
    }

    fn add_workloads(
        &mut self,
        objects: &Objects,
        said: &Ports<'_>,
        previous: Option<&Self>,
        findings: &mut Vec<Finding>,
    ) {
        for workload in objects.workloads.values() {
            let ports = inbound_ports(workload, said, &objects.places);
            let Some(mesh_address) = workload.mesh_address() else {
                self.reach.add(workload, &ports, findings);
                continue;
            };
            let all = || workload.addresses().map(|address| SocketAddr::new(address, mesh_address.port()));
            let taken = all().find_map(|address| Some((address, self.by_mesh_address.get(&address)?)));
            if let Some((mesh_address, first)) = taken {
                findings.push(Finding {
                    subject: Subject::Workload(workload.name.clone()),
                    path: "spec.mesh.port".to_owned(),
                    reason: format!("{mesh_address} is already the mesh address of {first}"),
                    refused: true,
                });
                continue;
            }
            let view = WorkloadView {
                name: workload.name.clone(),
                service_account: workload.service_account.clone(),
                mesh_address,
                zone: workload.zone.clone(),
                ports,
            };
            self.reach.add(workload, &view.ports, findings);
            let kept = previous.and_then(|mesh| mesh.workloads.get(&view.name));
            self.by_mesh_address.extend(all().map(|address| (address, workload.name.clone())));
            self.workloads.insert(workload.name.clone(), keep_equal(view, kept));
        }
    }
}

/// Those that are asked whether requests pass. They are not limited so themselves: two of them could ask each other for
/// ever.
fn rate_limit_services(objects: &Objects) -> BTreeSet<&ServicePort> {
    let limits = objects.policies.values().filter_map(|policy| policy.policy.global_rate_limit.as_ref());
    limits.map(|limit| &limit.service).collect()
}

fn keep_equal<T: PartialEq>(new: T, old: Option<&Arc<T>>) -> Arc<T> {
    match old {
        Some(old) if **old == new => Arc::clone(old),
        _ => Arc::new(new),
    }
}

pub(super) fn service_port(service: &Service, port: &Port) -> Result<ServicePort, pillion_wire::name::NameError> {
    ServicePort::new(&service.name.name, &service.name.namespace, port.port)
}

/// Who names a Service of the mesh as if it were elsewhere should know what that means.
fn note_external(service: &Service, key: &ServicePort, objects: &Objects, findings: &mut Vec<Finding>) {
    let Some(external) = &service.external else { return };
    let is_ours = |(name, namespace)| objects.services.contains_key(&Name::new(namespace, name));
    if external.service().is_some_and(is_ours) {
        findings.push(Finding {
            subject: Subject::Service(service.name.clone()),
            path: "spec.externalName".to_owned(),
            reason: past_the_mesh(&external.name, key),
            refused: false,
        });
    }
}

/// Workloads by each of their labels.
struct Directory<'a> {
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Workload>>,
}

impl<'a> Directory<'a> {
    fn new(objects: &'a Objects) -> Self {
        let mut by_label: HashMap<_, Vec<&Workload>> = HashMap::new();
        for workload in objects.workloads.values() {
            for (key, value) in &workload.labels {
                by_label
                    .entry((workload.name.namespace.as_str(), key.as_str(), value.as_str()))
                    .or_default()
                    .push(workload);
            }
        }
        Self { by_label }
    }

    /// The workloads that `service` selects, in order of name.
    fn members(&self, service: &Service) -> Vec<&'a Workload> {
        let namespace = service.name.namespace.as_str();
        let candidates = service
            .selector
            .iter()
            .map(|(key, value)| {
                self.by_label.get(&(namespace, key.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice)
            })
            .min_by_key(|candidates| candidates.len());
        candidates.unwrap_or_default().iter().filter(|workload| service.selects(&workload.labels)).copied().collect()
    }
}

/// What Services say that workloads' ports speak.
type Spoken<'a> = HashMap<(&'a Name, u16), Protocol>;

/// What Services and their policies say of workloads' ports: the first Service by name that leads there and says it.
struct Ports<'a> {
    spoken: Spoken<'a>,
    limited: Said<'a, RateLimits>,
    ages: Said<'a, Duration>,
    asking: Said<'a, Arc<GlobalRateLimit>>,
    shedding: Said<'a, LoadShedding>,
    /// Where all that comes from.
    ruling: HashMap<(&'a Name, u16), BTreeMap<String, Origin>>,
}

/// Adds those that are not there: the first Service by name counts, as for what they say.
fn note_sections(all: &mut BTreeMap<String, Origin>, sections: &BTreeMap<String, Origin>) {
    for (name, origin) in sections {
        all.entry(name.clone()).or_insert_with(|| origin.clone());
    }
}

/// A port of a Service and the workload ports behind it.
struct Draft<'a> {
    key: ServicePort,
    port: &'a Port,
    service: &'a Service,
    members: Vec<(&'a Workload, &'a WorkloadPort)>,
}

impl<'a> Draft<'a> {
    fn new(
        key: ServicePort,
        service: &'a Service,
        port: &'a Port,
        members: &[&'a Workload],
        findings: &mut Vec<Finding>,
    ) -> Self {
        let found: Vec<_> =
            members.iter().filter_map(|workload| Some((*workload, workload.port(&port.target)?))).collect();
        if found.len() < members.len() {
            let target = match &port.target {
                Target::Number(number) => number.to_string(),
                Target::Name(name) => format!("named `{name}`"),
            };
            findings.push(Finding {
                subject: Subject::Service(service.name.clone()),
                path: "spec.ports".to_owned(),
                reason: format!(
                    "port {}: {} of {} selected workloads have no port {target}",
                    port.port,
                    members.len() - found.len(),
                    members.len(),
                ),
                refused: false,
            });
        }
        Self { key, port, service, members: found }
    }

    /// What the Service, or failing that its workloads, say is spoken here.
    fn protocol(&self) -> Protocol {
        if let Some(said) = self.port.app_protocol {
            return said;
        }
        let mut said = self.members.iter().map(|(_, port)| port.protocol);
        if let Some(Some(first)) = said.next()
            && said.all(|other| other == Some(first))
        {
            return first;
        }
        self.port
            .name
            .as_deref()
            .and_then(Protocol::from_port_name)
            .or_else(|| {
                let mut said =
                    self.members.iter().map(|(_, port)| port.name.as_deref().and_then(Protocol::from_port_name));
                let first = said.next()??;
                said.all(|other| other == Some(first)).then_some(first)
            })
            .unwrap_or_default()
    }

    /// The port at the name that the Service stands for: documents give it as a number.
    fn external_port(&self) -> u16 {
        match self.port.target {
            Target::Number(number) => number,
            Target::Name(_) => self.port.port,
        }
    }

    fn note_protocols(&self, spoken: &mut Spoken<'a>) {
        let named = || self.port.name.as_deref().and_then(Protocol::from_port_name);
        for (workload, port) in &self.members {
            let said = self.port.app_protocol.or(port.protocol).or_else(named);
            if let Some(said) = said {
                spoken.entry((&workload.name, port.port)).or_insert(said);
            }
        }
    }

    fn endpoints(&self, is_in: impl Fn(&Workload) -> bool) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = self
            .members
            .iter()
            .filter(|(workload, _)| is_in(workload))
            .map(|(workload, port)| Endpoint {
                address: SocketAddr::new(workload.address, port.port),
                mesh: inside(workload),
                zone: workload.zone.clone(),
                weight: workload.weight,
            })
            .collect();
        endpoints.sort_unstable();
        endpoints.dedup_by(|a, b| a.address == b.address);
        endpoints
    }

    /// What routes may send to besides the whole port: its subsets. Nothing is attached to them.
    fn subsets(&self, policies: &Policies<'_>) -> Vec<PortView> {
        let policy = policies.of_port(self.service, self.port);
        let subsets = policy.subsets.iter().flatten();
        let view = |subset: &Subset| {
            let key = self.key.clone().of_subset(&subset.name).ok()?;
            Some(PortView {
                key: PortName::Service(key),
                protocol: self.protocol(),
                http: None,
                tcp: None,
                tls: Vec::new(),
                policy: policy.clone(),
                endpoints: self.endpoints(|workload| subset.has(&workload.labels)),
                external: None,
                origins: Unhashed::default(),
            })
        };
        subsets.filter_map(view).collect()
    }

    fn finish(
        self,
        tables: &table::Tables<'_>,
        policies: &Policies<'_>,
        sections: BTreeMap<String, Origin>,
    ) -> PortView {
        let protocol = self.protocol();
        let policy = policies.of_port(self.service, self.port);
        let endpoints = self.endpoints(|_| true);
        let external = |host: &External| ExternalPort { host: host.clone(), port: self.external_port() };
        let external = self.service.external.as_ref().map(external);
        let mut origins =
            Origins { owner: Some(tables.owner(self.service, self.port)), sections, ..Origins::default() };
        let http = protocol.carries_http().then(|| tables.http(self.service, self.port, policies, &policy, &origins));
        if protocol.carries_tcp() {
            origins.rule = tables.tcp_rule(self.service, self.port);
        }
        tables.add_fallbacks(&policy, policies, &mut origins);
        PortView {
            http: http.flatten(),
            origins: Unhashed(origins),
            tcp: protocol.carries_tcp().then(|| tables.tcp(self.service, self.port, policies)).flatten(),
            tls: if protocol.carries_tcp() { tables.tls(self.service, self.port, policies) } else { Vec::new() },
            key: PortName::Service(self.key),
            protocol,
            policy,
            endpoints,
            external,
        }
    }
}

fn inbound_ports(workload: &Workload, said: &Ports<'_>, places: &Places) -> Vec<InboundPort> {
    let mut ports: Vec<InboundPort> = workload
        .ports
        .iter()
        .enumerate()
        .map(|(index, port)| InboundPort {
            origins: Unhashed(Origins {
                owner: Some(places.origin("Workload", &workload.name, format!("spec.ports[{index}]"))),
                sections: said.ruling.get(&(&workload.name, port.port)).cloned().unwrap_or_default(),
                ..Origins::default()
            }),
            port: port.port,
            application: port.application,
            protocol: said
                .spoken
                .get(&(&workload.name, port.port))
                .copied()
                .or(port.protocol)
                .or_else(|| port.name.as_deref().and_then(Protocol::from_port_name))
                .unwrap_or_default(),
            access: port.access,
            rate_limits: said.limited.of(&workload.name, port.port).cloned().unwrap_or_default(),
            connection_age: said.ages.of(&workload.name, port.port).copied(),
            global_rate_limit: said.asking.of(&workload.name, port.port).cloned(),
            load_shedding: said.shedding.of(&workload.name, port.port).cloned(),
        })
        .collect();
    ports.sort_unstable_by_key(|port| port.port);
    ports
}
