//! Our own ports, and the clusters that they ask.

use http::StatusCode;

use super::*;
use crate::config::{AppProtocol, Cluster, Endpoint, Endpoints, GlobalRateLimit, RATE_LIMIT_TIMEOUT, UpstreamProtocol};

const MESH: &str = "127.0.0.1:15008";

struct World(Assembly, BTreeSet<(Kind, String)>);

impl World {
    fn new() -> Self {
        let mesh = Some(MESH.parse().expect("literal"));
        Self(Assembly::new(mesh, false, Duration::from_secs(600)), BTreeSet::new())
    }

    /// What is published, and has to be asked for.
    fn tell(&mut self, kind: Kind, name: &str, change: Change) -> Option<Inbound> {
        self.0.handle_update(Update { kind, name: name.to_owned(), change }, Instant::now());
        self.turn()
    }

    fn turn(&mut self) -> Option<Inbound> {
        let output = self.0.poll_output();
        for subscription in output.subscriptions {
            match subscription {
                Subscription::Begin(kind, name) => assert!(self.1.insert((kind, name))),
                Subscription::End(kind, name) => assert!(self.1.remove(&(kind, name))),
                other => panic!("{other:?}"),
            }
        }
        output.inbound
    }

    /// Our port 80 asks `cluster`.
    fn serve(&mut self, cluster: Option<&str>) -> Option<Inbound> {
        let global = cluster.map(|cluster| {
            Arc::new(GlobalRateLimit {
                cluster: cluster.to_owned(),
                authority: cluster.to_owned(),
                domain: "d".to_owned(),
                timeout: RATE_LIMIT_TIMEOUT,
                on_failure: None,
                status: StatusCode::TOO_MANY_REQUESTS,
                resource_exhausted: true,
                tell_limits: false,
                tell_limited: true,
                answers: Vec::new(),
                descriptors: Vec::new(),
            })
        });
        let port = config::InboundPort {
            global,
            ..config::InboundPort::new(80, SocketAddr::from(([127, 0, 0, 1], 8080)), AppProtocol::Http1)
        };
        let name = ListenerName::Inbound(MESH.parse().expect("literal")).to_string();
        let listener = InboundListener { ports: BTreeMap::from([(80, port)]) };
        self.tell(Kind::Listener, &name, Change::Accepted(Config::Inbound(listener)))
    }

    fn cluster(&mut self, name: &str, protocol: UpstreamProtocol) -> Option<Inbound> {
        let cluster = Cluster { protocol, ..Cluster::new(name) };
        self.tell(Kind::Cluster, name, Change::Accepted(Config::Cluster(cluster)))
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.1.contains(&(kind, name.to_owned()))
    }
}

fn endpoints(port: u16) -> Change {
    let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port)));
    let endpoints = Endpoints::new("limits", vec![endpoint]);
    Change::Accepted(Config::Endpoints(endpoints))
}

fn asked(inbound: &Inbound) -> Option<Arc<crate::snapshot::GlobalLimit>> {
    inbound.ports[&80].global.clone()
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_finds_its_configuration_on_disk_serves_without_waiting() {
    let mut world = World::new();
    let first = world.serve(Some("limits")).expect("nobody could be waited for");
    assert!(asked(&first).is_some_and(|limit| limit.cluster.upstream.hosts().is_empty()), "the policy says what then");
    world.cluster("limits", UpstreamProtocol::Http2);
    let second = world.tell(Kind::Endpoints, "limits", endpoints(1)).expect("complete");
    assert_eq!(asked(&second).expect("it asks").cluster.upstream.hosts().len(), 1);

    let mut world = World::new();
    world.0.handle_connection(true);
    assert!(world.serve(Some("limits")).is_none(), "the control plane is about to say");
    world.cluster("limits", UpstreamProtocol::Http2);
    assert!(world.tell(Kind::Endpoints, "limits", endpoints(1)).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_is_there_before_anything_is_asked() {
    let mut world = World::new();
    let first = world.serve(None).expect("there is nothing to wait for");
    assert!(asked(&first).is_none());
    assert!(world.serve(Some("limits")).is_none(), "the cluster is not there yet");
    assert!(world.has(Kind::Cluster, "limits") && !world.has(Kind::Endpoints, "limits"));
    assert!(world.cluster("limits", UpstreamProtocol::Http2).is_none(), "nor are its endpoints");
    assert!(world.has(Kind::Endpoints, "limits"));
    let second = world.tell(Kind::Endpoints, "limits", endpoints(1)).expect("complete");
    let limit = asked(&second).expect("it asks");
    assert_eq!((limit.cluster.config.name.as_str(), limit.cluster.upstream.hosts().len()), ("limits", 1));
    assert!(Arc::ptr_eq(&first.ports[&80].hosts[0], &second.ports[&80].hosts[0]), "the application is the same");

    let turn = limit.calls.enter(1).expect("free");
    assert!(world.tell(Kind::Endpoints, "limits", endpoints(2)).is_none(), "they flow into the live cluster");
    assert_eq!(limit.cluster.upstream.hosts()[0].key().address.port(), 2);
    let third = world.cluster("limits", UpstreamProtocol::Downstream).expect("the cluster has changed");
    let changed = asked(&third).expect("it asks");
    assert_eq!(changed.cluster.config.protocol, UpstreamProtocol::Downstream);
    assert_eq!(changed.calls.count(), 1, "what is under way is still counted");
    drop(turn);

    assert!(world.serve(Some("others")).is_none(), "the old one is asked until the new one is there");
    assert!(world.has(Kind::Cluster, "limits") && world.has(Kind::Cluster, "others"));
    let fourth = world.tell(Kind::Cluster, "others", Change::Removed).expect("there is none: nobody waits for it");
    assert!(asked(&fourth).is_some_and(|limit| limit.cluster.upstream.hosts().is_empty()));
    assert!(!world.has(Kind::Cluster, "limits") && !world.has(Kind::Endpoints, "limits"));
    assert!(asked(&world.serve(None).expect("published")).is_none());
    assert!(!world.has(Kind::Cluster, "others"));
}

#[tokio::test(start_paused = true)]
async fn what_never_comes_does_not_keep_the_rest_from_being_in_force() {
    let mut world = World::new();
    world.0.handle_connection(true);
    assert!(world.serve(Some("limits")).is_none(), "it is about to come");
    let until = world.0.poll_time().expect("the wait has an end");
    world.0.handle_time(until - Duration::from_millis(1));
    assert!(world.turn().is_none());
    world.0.handle_time(until);
    let served = world.turn().expect("long enough");
    assert!(asked(&served).is_some_and(|limit| limit.cluster.upstream.hosts().is_empty()), "the policy says what then");
    assert!(world.has(Kind::Cluster, "limits"), "it is still asked for");
    world.cluster("limits", UpstreamProtocol::Http2);
    let complete = world.tell(Kind::Endpoints, "limits", endpoints(1)).expect("complete");
    assert_eq!(asked(&complete).expect("it asks").cluster.upstream.hosts().len(), 1);

    let mut world = World::new();
    world.0.handle_connection(true);
    assert!(world.serve(Some("limits")).is_none(), "it is about to come");
    world.0.handle_connection(false);
    assert!(world.turn().is_some(), "and now it is not");
}
