use std::num::NonZeroU32;

use super::*;
use crate::config::{
    self, Action, AppProtocol, Cluster, Endpoint, Endpoints, Route, RouteConfig, RouteMatch, RouteSource, Split,
    UpstreamProtocol, VirtualHost, WeightedCluster,
};
use crate::snapshot::{self, Target};

const IDLE: Duration = Duration::from_secs(600);

/// An assembly with what it published and asked for.
struct World {
    assembly: Assembly,
    now: Instant,
    outbound: Outbound,
    publications: usize,
    subscribed: BTreeSet<Reference>,
    resolving: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let (now, outbound) = (Instant::now(), Outbound::default());
        let assembly = Assembly::new(None, false, IDLE);
        let (subscribed, resolving) = (BTreeSet::new(), BTreeSet::new());
        Self { assembly, now, outbound, publications: 0, subscribed, resolving }
    }

    fn poll(&mut self) {
        let output = self.assembly.poll_output();
        for subscription in output.subscriptions {
            match subscription {
                Subscription::Begin(kind, name) => assert!(self.subscribed.insert((kind, name))),
                Subscription::End(kind, name) => assert!(self.subscribed.remove(&(kind, name))),
                Subscription::Resolve(dns) => assert!(self.resolving.insert(dns.key())),
                Subscription::Unresolve(key) => assert!(self.resolving.remove(&key)),
            }
        }
        if let Some(outbound) = output.outbound {
            self.outbound = outbound;
            self.publications += 1;
        }
    }

    fn demand(&mut self, name: &str) {
        assert!(self.assembly.handle_demand(Demand::Destination(destination(name)), self.now));
        self.poll();
    }

    fn tell(&mut self, kind: Kind, name: &str, config: Config) {
        let update = Update { kind, name: name.into(), change: Change::Accepted(config) };
        self.assembly.handle_update(update, self.now);
        self.poll();
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        self.assembly.handle_update(Update { kind, name: name.into(), change: Change::Removed }, self.now);
        self.poll();
    }

    fn listener(&mut self, name: &str, route: &str) {
        let http = Some(RouteSource::Named(route.into()));
        let config = OutboundListener {
            destination: destination(name),
            http,
            filters: Vec::new(),
            tcp: None,
            tls: Vec::new(),
            origins: Arc::default(),
        };
        self.tell(Kind::Listener, name, Config::Outbound(config));
    }

    fn route(&mut self, name: &str, clusters: &[&str]) {
        self.tell(Kind::Route, name, Config::Route(route(name, clusters)));
    }

    fn cluster(&mut self, name: &str) {
        self.tell(Kind::Cluster, name, Config::Cluster(cluster(name, name)));
    }

    fn endpoints(&mut self, name: &str, ports: &[u16]) {
        self.tell(Kind::Endpoints, name, Config::Endpoints(endpoints(name, ports)));
    }

    /// `name` with everything, over one route and one cluster of the same name.
    fn complete(&mut self, name: &str) {
        self.demand(name);
        self.listener(name, name);
        self.route(name, &[name]);
        self.cluster(name);
        self.endpoints(name, &[1]);
    }

    fn lookup(&self, name: &str) -> Option<&Lookup> {
        self.outbound.targets.get(&destination(name))
    }

    fn target(&self, name: &str) -> Option<Arc<Target>> {
        match self.lookup(name)? {
            Lookup::Known(target) => Some(Arc::clone(target)),
            Lookup::Unknown | Lookup::Refused => None,
        }
    }

    /// Names of the clusters that the first route of `name` leads to.
    fn clusters(&self, name: &str) -> Vec<String> {
        self.split(name).iter().map(|cluster| cluster.config.name.clone()).collect()
    }

    fn split(&self, name: &str) -> Vec<Arc<snapshot::Cluster>> {
        let target = self.target(name).expect("published");
        match &target.http.as_ref().expect("routes").virtual_hosts[0].routes[0].action {
            snapshot::Action::Forward(split) => split.clusters().map(|(_, cluster)| Arc::clone(cluster)).collect(),
            snapshot::Action::Redirect(_) | snapshot::Action::DirectResponse { .. } => Vec::new(),
        }
    }

    fn is_subscribed(&self, kind: Kind, name: &str) -> bool {
        self.subscribed.contains(&(kind, name.into()))
    }
}

fn destination(name: &str) -> Destination {
    name.parse().expect("literal")
}

fn route(name: &str, clusters: &[&str]) -> RouteConfig {
    let weighted = |name: &&str| WeightedCluster::new((*name).into(), NonZeroU32::MIN);
    let action = Action::Forward(Split {
        clusters: clusters.iter().map(weighted).collect(),
        hash: Vec::new(),
        by_hash: false,
        lasts: config::Lasts::default(),
    });
    let routes = vec![Route {
        name: String::new(),
        matches: RouteMatch::default(),
        action,
        filters: Default::default(),
        fallback: None,
        treatment: Default::default(),
        origins: Arc::default(),
    }];
    let host = VirtualHost { name: name.into(), domains: vec!["*".into()], routes };
    RouteConfig { name: name.into(), virtual_hosts: vec![host] }
}

fn cluster(name: &str, endpoints: &str) -> Cluster {
    Cluster { endpoints: endpoints.into(), protocol: UpstreamProtocol::Http1, ..Cluster::new(name) }
}

fn endpoints(name: &str, ports: &[u16]) -> Endpoints {
    let endpoint = |port: &u16| Endpoint::new(SocketAddr::from(([127, 0, 0, 1], *port)));
    let endpoints = ports.iter().map(endpoint).collect();
    Endpoints::new(name, endpoints)
}

#[tokio::test(start_paused = true)]
async fn a_destination_is_published_when_all_that_it_refers_to_is_there() {
    let mut world = World::new();
    world.demand("a.shop:80");
    assert!(world.is_subscribed(Kind::Listener, "a.shop:80"));
    world.listener("a.shop:80", "r");
    world.route("r", &["x", "y"]);
    assert!(world.is_subscribed(Kind::Cluster, "x") && world.is_subscribed(Kind::Cluster, "y"));
    world.cluster("x");
    world.cluster("y");
    world.endpoints("x", &[1]);
    assert_eq!(world.publications, 0, "y has no endpoints yet");
    world.endpoints("y", &[2]);
    assert_eq!(world.clusters("a.shop:80"), ["x", "y"]);
    assert_eq!(world.publications, 1);
}

#[tokio::test(start_paused = true)]
async fn a_route_moved_to_a_cluster_without_endpoints_keeps_the_old_one() {
    let mut world = World::new();
    world.complete("a.shop:80");
    let old = world.target("a.shop:80").expect("published");
    world.route("a.shop:80", &["new"]);
    world.cluster("new");
    assert!(Arc::ptr_eq(&old, &world.target("a.shop:80").expect("published")));
    assert!(world.is_subscribed(Kind::Endpoints, "a.shop:80"), "the old endpoints are still followed");
    world.endpoints("a.shop:80", &[1, 2]);
    assert_eq!(world.split("a.shop:80")[0].upstream.hosts().len(), 2);
    world.endpoints("new", &[3]);
    assert_eq!(world.clusters("a.shop:80"), ["new"]);
    assert!(!world.is_subscribed(Kind::Cluster, "a.shop:80"), "and given up when they are no longer used");
    assert!(!world.is_subscribed(Kind::Endpoints, "a.shop:80"));
    assert!(world.is_subscribed(Kind::Endpoints, "new"));
}

#[tokio::test(start_paused = true)]
async fn endpoints_flow_into_the_live_upstream_without_a_new_target() {
    let mut world = World::new();
    world.complete("a.shop:80");
    let host = Arc::clone(&world.split("a.shop:80")[0].upstream.hosts()[0]);
    let before = world.publications;
    world.endpoints("a.shop:80", &[1, 2, 3]);
    let hosts = world.split("a.shop:80")[0].upstream.hosts();
    assert_eq!(hosts.len(), 3);
    assert!(hosts.iter().any(|other| Arc::ptr_eq(other, &host)), "a host that stays is the same host");
    assert_eq!(world.publications, before);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_changes_keeps_its_upstream() {
    let mut world = World::new();
    world.complete("a.shop:80");
    let old = world.split("a.shop:80").remove(0);
    let mut changed = cluster("a.shop:80", "a.shop:80");
    changed.connect_timeout = Duration::from_secs(1);
    world.tell(Kind::Cluster, "a.shop:80", Config::Cluster(changed.clone()));
    let new = world.split("a.shop:80").remove(0);
    assert_eq!(new.config, changed);
    assert!(Arc::ptr_eq(&old.upstream, &new.upstream));
    let published = world.publications;
    world.tell(Kind::Cluster, "a.shop:80", Config::Cluster(changed));
    assert_eq!(world.publications, published, "the same again changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_changes_its_endpoints_resource_only_when_the_new_one_is_there() {
    let mut world = World::new();
    world.complete("a.shop:80");
    world.tell(Kind::Cluster, "a.shop:80", Config::Cluster(cluster("a.shop:80", "other")));
    assert!(world.is_subscribed(Kind::Endpoints, "other") && world.is_subscribed(Kind::Endpoints, "a.shop:80"));
    assert_eq!(world.split("a.shop:80")[0].upstream.hosts().len(), 1);
    world.endpoints("other", &[5, 6]);
    assert_eq!(world.split("a.shop:80")[0].upstream.hosts().len(), 2);
    assert!(!world.is_subscribed(Kind::Endpoints, "a.shop:80"));
}

#[tokio::test(start_paused = true)]
async fn only_what_a_change_concerns_is_rebuilt() {
    let mut world = World::new();
    world.complete("a.shop:80");
    world.complete("b.shop:80");
    let b = world.target("b.shop:80").expect("published");
    world.route("a.shop:80", &["b.shop:80"]);
    assert_eq!(world.clusters("a.shop:80"), ["b.shop:80"], "a cluster that is there already costs no wait");
    assert!(Arc::ptr_eq(&b, &world.target("b.shop:80").expect("published")));
    assert!(Arc::ptr_eq(&world.split("a.shop:80")[0].upstream, &world.split("b.shop:80")[0].upstream));
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_resource_stays_in_force_until_it_is_replaced() {
    let mut world = World::new();
    world.complete("a.shop:80");
    for kind in [Kind::Endpoints, Kind::Cluster, Kind::Route] {
        world.remove(kind, "a.shop:80");
        assert_eq!(world.clusters("a.shop:80"), ["a.shop:80"]);
        assert_eq!(world.split("a.shop:80")[0].upstream.hosts().len(), 1);
    }
    world.route("a.shop:80", &["new"]);
    world.cluster("new");
    world.endpoints("new", &[3]);
    assert_eq!(world.clusters("a.shop:80"), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn what_never_existed_is_not_waited_for() {
    let mut world = World::new();
    world.demand("a.shop:80");
    world.listener("a.shop:80", "r");
    world.route("r", &["x", "y"]);
    world.cluster("x");
    world.remove(Kind::Endpoints, "x");
    world.remove(Kind::Cluster, "y");
    assert_eq!(world.clusters("a.shop:80"), ["x", "y"]);
    assert!(world.split("a.shop:80").iter().all(|cluster| cluster.upstream.hosts().is_empty()));
    // It appears after all.
    world.cluster("y");
    world.endpoints("y", &[1]);
    world.endpoints("x", &[2]);
    assert!(world.split("a.shop:80").iter().all(|cluster| cluster.upstream.hosts().len() == 1));
    world.demand("b.shop:80");
    world.listener("b.shop:80", "none");
    world.remove(Kind::Route, "none");
    let target = world.target("b.shop:80").expect("published");
    assert!(target.http.as_ref().expect("routes").virtual_hosts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_invalid_backend_is_never_asked_for() {
    let mut world = World::new();
    world.demand("a.shop:80");
    world.listener("a.shop:80", "r");
    world.route("r", &["pillion-invalid-backend"]);
    assert_eq!(world.clusters("a.shop:80"), ["pillion-invalid-backend"]);
    assert!(!world.is_subscribed(Kind::Cluster, "pillion-invalid-backend"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_destination_is_answered_and_forgotten_after_a_while() {
    let mut world = World::new();
    world.demand("a.shop:80");
    world.remove(Kind::Listener, "a.shop:80");
    assert!(matches!(world.lookup("a.shop:80"), Some(Lookup::Unknown)));
    assert_eq!(world.assembly.poll_time(), Some(world.now + Duration::from_secs(30)));
    world.assembly.handle_time(world.now + Duration::from_secs(30));
    world.poll();
    assert!(world.lookup("a.shop:80").is_none() && world.subscribed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_destination_that_appears_is_published() {
    let mut world = World::new();
    world.demand("a.shop:80");
    world.remove(Kind::Listener, "a.shop:80");
    world.complete("a.shop:80");
    assert_eq!(world.clusters("a.shop:80"), ["a.shop:80"]);
    assert_eq!(world.assembly.poll_time(), Some(world.now + IDLE), "what is known is kept for long");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_disappears_becomes_unknown_and_lets_go_of_everything() {
    let mut world = World::new();
    world.complete("a.shop:80");
    world.remove(Kind::Listener, "a.shop:80");
    assert!(matches!(world.lookup("a.shop:80"), Some(Lookup::Unknown)));
    assert_eq!(world.subscribed.len(), 1, "{:?}", world.subscribed);
    world.complete("a.shop:80");
    assert_eq!(world.clusters("a.shop:80"), ["a.shop:80"]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_in_use_survives_its_cluster() {
    let mut world = World::new();
    world.complete("a.shop:80");
    let in_use = world.split("a.shop:80").remove(0);
    world.route("a.shop:80", &["b"]);
    world.cluster("b");
    world.endpoints("b", &[2]);
    world.route("a.shop:80", &["a.shop:80"]);
    world.cluster("a.shop:80");
    world.endpoints("a.shop:80", &[1]);
    assert!(Arc::ptr_eq(&world.split("a.shop:80")[0].upstream, &in_use.upstream));
}

#[tokio::test(start_paused = true)]
async fn a_host_is_asked_for_followed_and_forgotten_as_a_destination_is() {
    let mut world = World::new();
    let name = "pillion/host?name=orders.shop";
    let host = || Demand::Host("orders.shop".into());
    let tell = |world: &mut World, addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| address.parse().expect("literal")).collect();
        let listener = HostListener { name: "orders.shop".into(), addresses };
        world.tell(Kind::Listener, name, Config::Host(listener));
    };
    let answer = |world: &World| match world.outbound.hosts.get("orders.shop") {
        Some(Lookup::Known(addresses)) => Some(addresses.iter().map(ToString::to_string).collect::<Vec<_>>()),
        Some(Lookup::Unknown | Lookup::Refused) => Some(vec!["unknown".into()]),
        None => None,
    };
    assert!(world.assembly.handle_demand(host(), world.now));
    world.poll();
    assert!(world.is_subscribed(Kind::Listener, name));
    assert_eq!(answer(&world), None);
    tell(&mut world, &["240.240.0.1", "fdf0:7069:6c6c::1"]);
    assert_eq!(answer(&world).expect("answered"), ["240.240.0.1", "fdf0:7069:6c6c::1"]);
    let publications = world.publications;
    tell(&mut world, &["240.240.0.1", "fdf0:7069:6c6c::1"]);
    assert_eq!(world.publications, publications, "the same again changes nothing");
    tell(&mut world, &[]);
    assert_eq!(answer(&world).expect("answered"), [""; 0], "a name without addresses is known");
    assert_eq!(world.assembly.poll_time(), Some(world.now + IDLE), "and kept for long");
    world.remove(Kind::Listener, name);
    assert_eq!(answer(&world).expect("answered"), ["unknown"]);
    world.assembly.handle_time(world.now + Duration::from_secs(30));
    world.poll();
    assert!(answer(&world).is_none() && world.subscribed.is_empty());
    tell(&mut world, &["240.240.0.1"]);
    assert!(answer(&world).is_none(), "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn hosts_and_destinations_share_one_limit() {
    let mut world = World::new();
    for number in 0..4096 {
        assert!(world.assembly.handle_demand(Demand::Host(format!("h{number}")), world.now));
    }
    let late = Demand::Host("late".into());
    assert!(!world.assembly.handle_demand(late.clone(), world.now));
    world.poll();
    assert!(matches!(world.outbound.hosts.get("late"), Some(Lookup::Refused)));
    world.remove(Kind::Listener, "pillion/host?name=h7");
    world.demand("a.shop:80");
    assert!(!world.outbound.hosts.contains_key("h7"), "what is unknown gave way");
    world.assembly.handle_time(world.now + Duration::from_secs(5));
    let outbound = world.assembly.poll_output().outbound.expect("published");
    assert!(!outbound.hosts.contains_key("late"), "it may come again");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_gives_way_to_something_new_while_that_can_be_asked_for() {
    let mut world = World::new();
    for number in 0..4096 {
        let name = format!("h{number}");
        assert!(world.assembly.handle_demand(Demand::Host(name.clone()), world.now));
        let listener = format!("pillion/host?name={name}");
        world.tell(Kind::Listener, &listener, Config::Host(HostListener { name, addresses: Vec::new() }));
    }
    let late = |number: u32| Demand::Host(format!("late-{number}"));
    assert!(!world.assembly.handle_demand(late(1), world.now), "nobody can be asked: what is known is worth more");
    world.assembly.handle_connection(true);
    assert!(world.assembly.handle_demand(late(2), world.now));
    world.poll();
    assert!(!world.outbound.hosts.contains_key("h0"), "the first that was known is gone");
    assert!(!world.is_subscribed(Kind::Listener, "pillion/host?name=h0"));
    assert!(world.is_subscribed(Kind::Listener, "pillion/host?name=late-2"));
}

#[tokio::test(start_paused = true)]
async fn too_many_destinations_are_refused_and_not_taken_for_unknown() {
    let mut world = World::new();
    for number in 0..4096 {
        world.demand(&format!("s{number}.shop:80"));
    }
    let late = Demand::Destination(destination("late.shop:80"));
    assert!(!world.assembly.handle_demand(late, world.now));
    world.poll();
    assert!(matches!(world.lookup("late.shop:80"), Some(Lookup::Refused)));
    assert!(!world.is_subscribed(Kind::Listener, "late.shop:80"));
}

#[tokio::test(start_paused = true)]
async fn updates_that_nobody_asked_for_change_nothing() {
    let mut world = World::new();
    world.listener("a.shop:80", "r");
    world.route("r", &["x"]);
    world.cluster("x");
    world.endpoints("x", &[1]);
    world.remove(Kind::Cluster, "y");
    world.tell(Kind::Route, "r", Config::Cluster(cluster("r", "r")));
    assert!(world.subscribed.is_empty() && world.publications == 0);
}

#[tokio::test(start_paused = true)]
async fn our_own_ports_keep_their_host_while_the_application_stays() {
    let mesh: SocketAddr = "127.0.0.1:15008".parse().expect("literal");
    let mut assembly = Assembly::new(Some(mesh), false, IDLE);
    let name = ListenerName::Inbound(mesh).to_string();
    let asked = assembly.poll_output().subscriptions;
    assert_eq!(asked, [Subscription::Begin(Kind::Listener, name.clone())]);
    let serve = |assembly: &mut Assembly, applications: &[(u16, u16)]| {
        let port = |&(port, application): &(u16, u16)| {
            let application = SocketAddr::from(([127, 0, 0, 1], application));
            let config = config::InboundPort::new(port, application, AppProtocol::Http1);
            (port, config)
        };
        let listener = InboundListener { ports: applications.iter().map(port).collect() };
        let change = Change::Accepted(Config::Inbound(listener));
        assembly.handle_update(Update { kind: Kind::Listener, name: name.clone(), change }, Instant::now());
        assembly.poll_output().inbound
    };
    let first = serve(&mut assembly, &[(80, 8080), (81, 8081)]).expect("published");
    let second = serve(&mut assembly, &[(80, 8080), (81, 9999)]).expect("published");
    assert!(Arc::ptr_eq(&first.ports[&80].hosts[0], &second.ports[&80].hosts[0]));
    assert!(!Arc::ptr_eq(&first.ports[&81].hosts[0], &second.ports[&81].hosts[0]));
    assembly.handle_update(Update { kind: Kind::Listener, name, change: Change::Removed }, Instant::now());
    assert!(assembly.poll_output().inbound.is_none(), "what is served stays");
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_cluster_follow_its_endpoints_and_its_configuration() {
    let criteria = |version: &str| config::Labels::from([("version".to_owned(), format!("\"{version}\""))]);
    let mut catalog = Catalog::default();
    catalog.begin_use(Kind::Cluster, "c", &User::Destination(destination("a.shop:80")));
    catalog.begin_use(Kind::Endpoints, "e", &User::Destination(destination("a.shop:80")));
    let selector = config::Selector { keys: ["version".to_owned()].into(), fallback: None };
    let subsets = config::Subsets {
        selectors: vec![selector],
        fallback: config::SubsetFallback::Nobody,
        default: config::Labels::new(),
    };
    let probe = pillion_wire::health::Probe::Grpc { service: "s".to_owned(), authority: String::new() };
    let rules = Arc::new(pillion_wire::health::HealthCheck::new(probe));
    let told = Cluster { subsets: Some(Arc::new(subsets)), health: Some(Arc::clone(&rules)), ..cluster("c", "e") };
    let hosts = |versions: &[&str]| {
        let mut all = endpoints("e", &(1..).take(versions.len()).collect::<Vec<u16>>());
        for (endpoint, version) in all.localities[0].endpoints.iter_mut().zip(versions) {
            endpoint.labels = Some(Arc::new(criteria(version)));
        }
        all
    };
    catalog.set_cluster("c", told.clone());
    catalog.set_endpoints("e", hosts(&["1", "2", "2"]));
    let part = catalog.part("c", &criteria("2")).expect("known");
    assert_eq!((part.config.name.as_str(), part.upstream.hosts().len()), ("c[version=\"2\"]", 2));
    assert_eq!(catalog.part("c", &config::Labels::new()).expect("known").upstream.hosts().len(), 0, "no fallback");
    let again = catalog.part("c", &criteria("2")).expect("known");
    assert!(Arc::ptr_eq(&part, &again));
    assert!(part.upstream.hosts().iter().all(|host| host.is_checked()));
    assert_eq!(part.config.health.as_deref(), Some(&rules.asking_for("c")), "asked by the name of the whole");
    catalog.set_endpoints("e", hosts(&["1", "1", "2"]));
    assert_eq!(part.upstream.hosts().len(), 1);
    assert!(part.upstream.hosts()[0].is_checked());
    catalog.set_cluster("c", Cluster { connect_timeout: Duration::from_secs(1), health: None, ..told.clone() });
    let renewed = catalog.part("c", &criteria("2")).expect("known");
    assert_eq!(renewed.config.connect_timeout, Duration::from_secs(1));
    assert!(Arc::ptr_eq(&renewed.upstream, &part.upstream), "what was measured stays");
    assert!(!part.upstream.hosts()[0].is_checked());
    // Who leads to it has not changed over yet when endpoints, or another configuration, come.
    drop(renewed);
    catalog.set_endpoints("e", hosts(&["2", "2", "2"]));
    assert_eq!(part.upstream.hosts().len(), 3, "it is still followed");
    catalog.set_cluster("c", Cluster { connect_timeout: Duration::from_secs(2), ..told.clone() });
    catalog.set_cluster("c", Cluster { connect_timeout: Duration::from_secs(3), ..told.clone() });
    let renewed = catalog.part("c", &criteria("2")).expect("known");
    assert!(Arc::ptr_eq(&renewed.upstream, &part.upstream));
    // Nobody leads to it any more.
    let gone = Arc::downgrade(&part.upstream);
    drop((part, again, renewed));
    catalog.set_endpoints("e", hosts(&["1", "1", "2"]));
    assert_eq!(gone.strong_count(), 0);
    let plain = cluster("c", "e");
    catalog.set_cluster("c", plain);
    let whole = catalog.part("c", &criteria("2")).expect("known");
    assert_eq!((whole.config.name.as_str(), whole.upstream.hosts().len()), ("c", 3), "it has no subsets");
}

#[tokio::test(start_paused = true)]
async fn names_are_asked_for_while_a_cluster_needs_them_and_anew_only_when_they_change() {
    let named = |name: &str, refresh| {
        let dns = Arc::new(crate::config::Dns {
            kind: crate::config::DnsKind::Strict,
            family: crate::config::LookupFamily::V4Only,
            refresh: Duration::from_secs(refresh),
            failure: (Duration::from_secs(1), Duration::from_secs(10)),
            respect_ttl: true,
            jitter: Duration::ZERO,
            localities: Vec::new(),
            overprovisioning: None,
        });
        let key = dns.key();
        (Config::Cluster(Cluster { dns: Some(dns), ..cluster(name, &key) }), key)
    };
    let mut world = World::new();
    world.demand("a.shop:80");
    world.listener("a.shop:80", "r");
    world.route("r", &["x"]);
    let (config, first) = named("x", 5);
    world.tell(Kind::Cluster, "x", config.clone());
    assert_eq!(world.resolving, BTreeSet::from([first.clone()]));
    assert_eq!(world.publications, 0, "nothing was found yet");
    assert!(!world.is_subscribed(Kind::Endpoints, &first), "no control plane knows them");
    world.endpoints(&first, &[1]);
    assert_eq!(world.publications, 1);
    let upstream = |world: &World| Arc::clone(&world.outbound.clusters()[0].upstream);
    let before = (upstream(&world), upstream(&world).hosts()[0].clone());
    world.endpoints(&first, &[2, 1]);
    assert_eq!(world.publications, 1, "hosts flow into what is there");
    assert!(upstream(&world).hosts().iter().any(|host| Arc::ptr_eq(host, &before.1)), "who stays is the same");
    // The same again; a change of something else.
    world.tell(Kind::Cluster, "x", config);
    let Config::Cluster(mut other) = named("x", 5).0 else { panic!() };
    other.connect_timeout = Duration::from_secs(1);
    world.tell(Kind::Cluster, "x", Config::Cluster(other));
    assert_eq!(world.resolving, BTreeSet::from([first.clone()]));
    // Other settings: the old ones stay until there is an answer.
    let (config, second) = named("x", 7);
    world.tell(Kind::Cluster, "x", config);
    assert_eq!(world.resolving, BTreeSet::from([first.clone(), second.clone()]));
    world.endpoints(&second, &[1]);
    assert_eq!(world.resolving, BTreeSet::from([second]));
    assert!(Arc::ptr_eq(&upstream(&world), &before.0));
    assert!(Arc::ptr_eq(&upstream(&world).hosts()[0], &before.1), "and so does its host");
    // Nobody calls it any more.
    world.now += 3 * IDLE;
    world.assembly.handle_time(world.now);
    world.now += 3 * IDLE;
    world.assembly.handle_time(world.now);
    world.poll();
    assert_eq!(world.resolving, BTreeSet::new());
}
