//! Services that stand for names elsewhere: what becomes of their callers when the names move, or nobody answers for them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};

use super::{ask, logged, policy, says};
use crate::support::{
    Host, Mesh, Network, Pod, Process, Sidecar, Stack, Workload, connect, in_workspace, nginx, nginx_command, python,
    run, tool, until,
};

/// SERVFAIL.
const FAILURE: u8 = 2;

/// A mesh with a nameserver, and addresses beyond the mesh's own where applications may listen on one port.
struct World {
    mesh: Mesh,
    nameserver: SocketAddr,
    port: u16,
}

impl World {
    fn start() -> Self {
        let mesh = Mesh::start();
        let (nameserver, port) = (mesh.free_address(), mesh.free_address().port());
        let world = Self { mesh, nameserver, port };
        world.zone(json!({}));
        world
    }

    /// What the nameserver says from now on.
    fn zone(&self, zone: Value) {
        let new = self.zone_file().with_extension("new");
        fs::write(&new, zone.to_string()).expect("a file");
        fs::rename(new, self.zone_file()).expect("a file in place");
    }

    fn zone_file(&self) -> PathBuf {
        self.mesh.scratch().join("zone.json")
    }

    fn start_nameserver(&self) -> Process {
        nameserver(&self.mesh, &python(), self.nameserver)
    }

    /// The `number`th address that is no mesh's: those end below 251.
    fn address(&self, number: u8) -> IpAddr {
        let IpAddr::V4(ip) = self.mesh.ip() else { panic!("loopback") };
        let [first, second, third, _] = ip.octets();
        Ipv4Addr::new(first, second, third, 250 + number).into()
    }

    /// nginx at the `number`th address; it answers with its number, the host that was asked for, and its connection's own number.
    fn server(&self, number: u8) -> Process {
        let at = SocketAddr::new(self.address(number), self.port);
        let server =
            format!("keepalive_timeout 600s; location / {{ return 200 \"{number} $http_host $connection\"; }}");
        let folder = self.mesh.scratch().join(format!("nginx-{number}"));
        let process = Process::spawn("nginx", &mut nginx_command(&folder, &at.to_string(), &server));
        until("nginx listens", || std::net::TcpStream::connect(at).is_ok());
        process
    }

    /// Service `api.shop`, port 80, which stands for `api.test`.
    fn service(&self, annotations: &str, protocol: &str) {
        self.mesh.write(
            "api.yaml",
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: api, namespace: shop, annotations: {{ {annotations} }} }}\n\
                 spec:\n  type: ExternalName\n  externalName: api.test\n  ports:\n  \
                 - {{ name: http, port: 80, targetPort: {}, appProtocol: {protocol} }}\n",
                self.port
            ),
        );
    }

    fn client(&self) -> Sidecar {
        self.mesh.workload(Workload::new("client").setting("dns_upstream", json!([self.nameserver])).tcp("api.shop:80"))
    }
}

fn nameserver(mesh: &Mesh, command: &std::process::Command, at: SocketAddr) -> Process {
    let mut command = copy(command);
    command.arg(in_workspace("tests/e2e/apps/nameserver.py")).arg(at.to_string());
    command.arg(format!("@{}", mesh.scratch().join("zone.json").display()));
    let mut process = Process::spawn("nameserver.py", &mut command);
    process.ready();
    process
}

fn copy(command: &std::process::Command) -> std::process::Command {
    let mut copy = std::process::Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

/// Who answers now: the server's number.
fn answers(client: &Sidecar) -> String {
    let answer = ask(client, "http://api.shop/", &[]);
    match answer.status {
        200 => answer.text().chars().take(1).collect(),
        _ => answer.reason().to_owned(),
    }
}

/// Its cluster, as `/clusters` tells.
fn cluster(client: &Sidecar) -> Value {
    let all: Value = serde_json::from_str(&client.admin_page("/clusters")).expect("JSON");
    all["api.shop:80"].clone()
}

fn name(client: &Sidecar) -> Value {
    cluster(client)["dns"]["names"]["api.test"].clone()
}

fn is_stale(client: &Sidecar) -> bool {
    name(client)["state"] == "stale"
}

#[test]
fn a_name_elsewhere_is_called_as_any_service_and_followed_where_it_moves() {
    let world = World::start();
    let _nameserver = world.start_nameserver();
    let _servers = [1, 2].map(|number| world.server(number));
    let [one, two] = [1, 2].map(|number| world.address(number));
    world.zone(json!({ "api.test": { "a": [one], "ttl": 1 } }));
    world.service("", "http");
    let client = world.client();

    let answer = ask(&client, "http://api.shop/", &[]);
    assert!(answer.text().starts_with("1 api.shop "), "its host is kept: {answer:?}");
    let dns = cluster(&client)["dns"].clone();
    assert_eq!((&dns["kind"], &dns["family"]), (&"strict".into(), &"V4Preferred".into()), "{dns}");
    let name = name(&client);
    assert_eq!(
        (&name["addresses"], &name["state"], &name["ttl_seconds"]),
        (&json!([one]), &"fresh".into(), &1.0.into())
    );
    assert!(name["last_error"].is_null() && name["resolved_seconds_ago"].as_f64() < Some(60.0), "{name}");
    assert!(client.metric("pillion_name_lookups_total", &[("result", "found")]) >= 1.0);

    // Another address joins: both are called, and the first is still the host that it was.
    world.zone(json!({ "api.test": { "a": [two, one], "ttl": 1 } }));
    let served = |at: IpAddr| {
        let hosts = cluster(&client)["hosts"].as_array().cloned().unwrap_or_default();
        let at = SocketAddr::new(at, world.port).to_string();
        hosts.iter().find(|host| host["address"] == at.as_str()).and_then(|host| host["requests"].as_u64())
    };
    let before = served(one).expect("a host");
    until("both are called", || answers(&client) == "2");
    assert!(served(one) >= Some(before));
    // The first leaves.
    world.zone(json!({ "api.test": { "a": [two], "ttl": 1 } }));
    let before = served(two).expect("a host");
    until("the first is not called any more", || served(one).is_none());
    assert!((0..5).all(|_| answers(&client) == "2"));
    assert!(served(two) >= Some(before + 5), "the second is the same host throughout");

    // Routes and policies hold as for any Service.
    world.mesh.write(
        "route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: api, namespace: shop }\nspec:\n  \
         parentRefs: [ { group: \"\", kind: Service, name: api } ]\n  rules:\n  \
         - filters: [ { type: URLRewrite, urlRewrite: { hostname: api.test } } ]\n    \
         backendRefs: [ { name: api, port: 80 } ]\n",
    );
    let rewritten = || ask(&client, "http://api.shop/", &[]).text().starts_with("2 api.test ");
    until("the host is that which the server goes by", rewritten);
    // A part of the traffic moves to a Service of the mesh.
    let own = nginx(&world.mesh, "location / { return 200 own; }");
    world.mesh.service("own", &[("http", 80, "http")]);
    let _own = world.mesh.workload(Workload::new("own").port("http", own.address));
    let half = "backendRefs: [ { name: api, port: 80, weight: 1 }, { name: own, port: 80, weight: 1 } ]";
    world.mesh.edit("route.yaml", "backendRefs: [ { name: api, port: 80 } ]", half);
    until("the mesh answers", || ask(&client, "http://api.shop/", &[]).text() == "own");
    until("the name elsewhere answers, too", rewritten);
    policy(&world.mesh, "api", "limits: { requests: 0 }");
    until("the policy is in force", || answers(&client) == "overflow");
}

#[test]
fn while_no_nameserver_answers_the_last_addresses_stay_in_use_and_are_called_stale() {
    let world = World::start();
    let nameserver = world.start_nameserver();
    let _servers = [1, 2].map(|number| world.server(number));
    let [one, two] = [1, 2].map(|number| world.address(number));
    world.zone(json!({ "api.test": { "a": [one], "ttl": 1 } }));
    world.service("", "http");
    let client = world.client();
    assert_eq!(answers(&client), "1");

    world.zone(json!({ "api.test": { "code": FAILURE } }));
    until("the name is stale", || is_stale(&client));
    assert!(name(&client)["last_error"].as_str().is_some_and(|error| error.contains("SERVFAIL")), "{}", name(&client));
    assert_eq!(answers(&client), "1");
    let stale = |state| client.metric("pillion_cluster_names", &[("cluster", "api.shop:80"), ("state", state)]);
    assert_eq!((stale("stale"), stale("fresh"), stale("empty")), (1.0, 0.0, 0.0));
    assert!(client.metric("pillion_name_lookups_total", &[("result", "failed")]) >= 1.0);

    world.zone(json!({ "api.test": { "a": [one], "ttl": 1 } }));
    until("the name is fresh", || name(&client)["state"] == "fresh");
    drop(nameserver);
    until("the name is stale", || is_stale(&client));
    assert!((0..5).all(|_| answers(&client) == "1"));
    world.zone(json!({ "api.test": { "a": [two], "ttl": 1 } }));
    let _nameserver = world.start_nameserver();
    until("the name is followed again", || answers(&client) == "2");
    assert_eq!((stale("stale"), stale("fresh")), (0.0, 1.0));
}

#[test]
fn settings_that_change_while_no_nameserver_answers_take_no_address_away() {
    let world = World::start();
    let _nameserver = world.start_nameserver();
    let _servers = [1, 2].map(|number| world.server(number));
    world.zone(json!({ "api.test": { "a": [world.address(1)], "ttl": 1 } }));
    world.service("", "http");
    let client = world.client();
    assert_eq!(answers(&client), "1");
    world.zone(json!({ "api.test": { "code": FAILURE } }));
    until("the name is stale", || is_stale(&client));
    for (annotations, field, value) in [
        ("pillion.dev/dns-lookup-family: AUTO", "family", "Auto"),
        ("pillion.dev/dns-lookup-family: V4_ONLY", "family", "V4Only"),
        ("pillion.dev/dns: logical", "kind", "logical"),
    ] {
        world.service(annotations, "http");
        until("the settings are in force", || cluster(&client)["dns"][field] == value);
        assert_eq!(answers(&client), "1", "{annotations}");
        assert!(is_stale(&client), "{annotations}: {}", name(&client));
    }
    world.zone(json!({ "api.test": { "a": [world.address(2)], "ttl": 1 } }));
    until("the name is followed again", || name(&client)["addresses"] == json!([world.address(2)]));
}

#[test]
fn sessions_of_a_logical_name_need_no_token() {
    let world = World::start();
    let _nameserver = world.start_nameserver();
    let _server = world.server(1);
    world.zone(json!({ "api.test": { "a": [world.address(1)], "ttl": 60 } }));
    world.service("pillion.dev/dns: logical", "http");
    policy(&world.mesh, "api", "sessionPersistence: { type: Cookie, sessionName: stay, strict: true }");
    let client = world.client();
    let url = "http://api.shop/";
    until("sessions are kept", || {
        let _asked = ask(&client, url, &[]);
        let dump: Value = serde_json::from_str(&client.admin_page("/config_dump")).expect("JSON");
        dump["outbound"]["api.shop:80"]["routes"][0]["filters"]["session"].is_string()
    });
    let first = ask(&client, url, &[]);
    assert_eq!((first.status, first.header("set-cookie")), (200, None), "{first:?}");
    // One that says where it was dialled: nowhere. `0.0.0.0` would be ourselves.
    let port = world.port;
    for text in [format!("0.0.0.0:{port};api.shop:80"), format!("[::]:{port};api.shop:80")] {
        let token = run(python().args([
            "-c",
            "import sys, base64; print(base64.b64encode(sys.argv[1].encode()).decode())",
            &text,
        ]));
        let answer = ask(&client, url, &["-H", &format!("Cookie: stay={}", token.trim())]);
        assert!(answer.text().starts_with("1 "), "{answer:?}");
    }
}

#[test]
fn a_name_that_leads_back_to_the_sidecar_is_refused_and_its_other_addresses_are_used() {
    let mut world = World::start();
    let _nameserver = world.start_nameserver();
    let client = world.client();
    let own = client.outbound();
    world.port = own.port();
    let _server = world.server(1);
    let other = world.address(1);
    for kind in ["strict", "logical"] {
        world.zone(json!({ "api.test": { "a": [own.ip()], "ttl": 1 } }));
        world.service(&format!("pillion.dev/dns: {kind}"), "http");
        let answer = |status| {
            let found = ask(&client, "http://api.shop/", &[]);
            (cluster(&client)["dns"]["kind"] == kind && found.status == status).then_some(found)
        };
        until("it is refused", || answer(508).is_some_and(|found| found.reason() == "own_port"));
        world.zone(json!({ "api.test": { "a": [own.ip(), other], "ttl": 1 } }));
        until("the other address is known", || answer(200).is_some());
        assert!((0..5).all(|_| answers(&client) == "1"), "{kind}");
    }
}

#[test]
fn a_name_without_addresses_is_an_error_that_says_so_until_it_has_some() {
    let world = World::start();
    let nameserver = world.start_nameserver();
    let _server = world.server(1);
    world.service("", "http");
    let client = world.client();
    let answer = ask(&client, "http://api.shop/nowhere", &[]);
    assert_eq!((answer.status, answer.reason()), (503, "dns_failure"));
    assert!(answer.text().contains("api.test") && answer.text().contains("NXDOMAIN"), "{}", answer.text());
    assert_eq!(logged(&client, "/nowhere"), says("dns_failure", "DF"));
    let grpc = ask(&client, "http://api.shop/", &["-H", "Content-Type: application/grpc"]);
    assert!(grpc.head.contains("grpc-status: 14"), "{grpc:?}");
    assert_eq!(name(&client)["state"], "empty");

    policy(&world.mesh, "api", "fallback: { response: { status: 503, body: later } }");
    until("the fallback answers", || ask(&client, "http://api.shop/", &[]).text() == "later");
    world.mesh.remove("policy-api.yaml");
    until("nobody answers", || ask(&client, "http://api.shop/", &[]).text() != "later");

    let there = || world.zone(json!({ "api.test": { "a": [world.address(1)], "ttl": 1 } }));
    there();
    until("it is called", || answers(&client) == "1");
    // Gone for good, which is said twice.
    world.zone(json!({}));
    until("it is not called", || answers(&client) == "dns_failure");
    there();
    until("it is called again", || answers(&client) == "1");
    drop(nameserver);

    // Nobody has ever said anything.
    let other = world.mesh.workload(Workload::new("other").setting("dns_upstream", json!([world.nameserver])));
    let answer = ask(&other, "http://api.shop/", &[]);
    assert_eq!((answer.status, answer.reason()), (503, "dns_failure"));
    assert!(answer.text().contains("no nameserver answers"), "{}", answer.text());

    // The same of one that is there and silent, before the caller is told that it took too long.
    let silent = std::net::UdpSocket::bind((world.mesh.ip(), 0)).expect("a free port");
    let at = silent.local_addr().expect("bound");
    let third = world.mesh.workload(Workload::new("third").setting("dns_upstream", json!([at])));
    let answer = ask(&third, "http://api.shop/", &[]);
    assert_eq!((answer.status, answer.reason()), (503, "dns_failure"));
    assert!(answer.text().contains("no nameserver answer"), "{}", answer.text());
}

#[test]
fn a_sidecar_that_starts_without_its_control_plane_asks_for_the_names_that_it_knows() {
    let world = World::start();
    let _nameserver = world.start_nameserver();
    let _servers = [1, 2].map(|number| world.server(number));
    world.zone(json!({ "api.test": { "a": [world.address(1)], "ttl": 1 } }));
    world.service("", "http");
    let state = world.mesh.scratch().join("kept");
    let client = Workload::new("client").setting("dns_upstream", json!([world.nameserver]));
    let client = world.mesh.workload(client.setting("state", state.to_str().expect("UTF-8")));
    assert_eq!(answers(&client), "1");
    until("its configuration is kept", || {
        let files = fs::read_dir(state.join("shop").join("client")).into_iter().flatten().flatten();
        files.filter(|file| file.file_name().to_string_lossy().starts_with("cluster-")).count() == 1
    });
    world.mesh.kill_control_plane();
    world.zone(json!({ "api.test": { "a": [world.address(2)], "ttl": 1 } }));
    let client = client.restart(&world.mesh);
    assert_eq!(answers(&client), "2");
}

#[test]
fn a_logical_name_keeps_its_connections_when_it_moves() {
    let world = World::start();
    let _nameserver = world.start_nameserver();
    let mut servers = [1, 2].map(|number| world.server(number));
    let [one, two] = [1, 2].map(|number| world.address(number));
    world.zone(json!({ "api.test": { "a": [one], "ttl": 1 } }));
    world.service("pillion.dev/dns: logical", "http");
    let client = world.client();
    let first = ask(&client, "http://api.shop/", &[]).text();
    assert!(first.starts_with("1 api.shop "), "{first}");
    world.zone(json!({ "api.test": { "a": [two], "ttl": 1 } }));
    until("the name has moved", || name(&client)["addresses"] == json!([two]));
    assert_eq!(ask(&client, "http://api.shop/", &[]).text(), first, "the connection that stands is used on");
    let cluster = cluster(&client);
    assert_eq!((&cluster["dns"]["kind"], cluster["hosts"].as_array().map(Vec::len)), (&"logical".into(), Some(1)));
    assert_eq!(cluster["hosts"][0]["name"], format!("api.test:{}", world.port));
    assert!(cluster["hosts"][0]["requests"].as_u64() >= Some(2), "the same host: {cluster}");
    servers[0].kill();
    until("new connections go where the name is now", || answers(&client) == "2");
}

#[test]
fn streams_to_a_logical_name_last_while_new_ones_go_where_it_is() {
    let world = World::start();
    let _nameserver = world.start_nameserver();
    let servers = [1, 2].map(|number| {
        let mut command = python();
        command.arg(in_workspace("tests/e2e/apps/lines.py"));
        command.arg(SocketAddr::new(world.address(number), world.port).to_string()).arg(number.to_string());
        let mut process = Process::spawn("lines.py", &mut command);
        process.ready();
        process
    });
    let [one, two] = [1, 2].map(|number| world.address(number));
    world.zone(json!({ "api.test": { "a": [one], "ttl": 1 } }));
    world.service("pillion.dev/dns: logical", "tcp");
    let client = world.client();
    let open = || {
        let mut stream = connect(client.tcp("api.shop:80"));
        let mut greeting = [0];
        stream.read_exact(&mut greeting).expect("a greeting");
        (stream, char::from(greeting[0]))
    };
    let (mut old, greeting) = open();
    assert_eq!(greeting, '1');
    world.zone(json!({ "api.test": { "a": [two], "ttl": 1 } }));
    until("new streams go where the name is now", || open().1 == '2');
    old.write_all(b"still there\n").expect("a stream that lasts");
    let mut echo = Vec::new();
    while !String::from_utf8_lossy(&echo).contains("still there") {
        let mut byte = [0];
        old.read_exact(&mut byte).expect("an echo");
        echo.extend(byte);
    }
    drop(servers);
}

#[test]
fn an_intercepted_program_calls_it_by_name_and_an_address_that_is_silent_hardly_delays_it() {
    let network = Network::start(Stack::Dual);
    let mesh = Mesh::start_on(Rc::new(network.host("control")), &[]);
    let [resolver, elsewhere]: [Host; 2] = ["resolver", "elsewhere"].map(|name| network.host(name));
    let v4 = elsewhere.v4.expect("both families");
    // Nobody has that one: packets to it are answered by nobody, and after seconds by the kernel.
    let zone = json!({ "api.test": { "a": [v4], "aaaa": ["fd77::dead"], "ttl": 60 } });
    fs::write(mesh.scratch().join("zone.json"), zone.to_string()).expect("a file");
    let at = SocketAddr::new(resolver.ip(), 53);
    let _nameserver = nameserver(&mesh, &resolver.wrap(&python()), at);
    let folder = mesh.scratch().join("nginx");
    let command = nginx_command(&folder, "8080", "location / { return 200 \"hello $http_host\"; }");
    let _server = Process::spawn("nginx", &mut elsewhere.wrap(&command));
    let listens = || {
        let mut command = elsewhere.command(tool("ss", "iproute2"));
        !run(command.args(["--no-header", "-ltn", "sport = :8080"])).is_empty()
    };
    until("nginx listens", listens);
    mesh.write(
        "api.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: { name: api, namespace: shop, annotations: { pillion.dev/dns: logical } }\n\
         spec: { type: ExternalName, externalName: api.test, ports: [ { port: 80, targetPort: 8080 } ] }\n",
    );
    let host = Rc::new(network.host("client"));
    host.etc("resolv.conf", &format!("nameserver {}\noptions timeout:5 attempts:1\n", resolver.ip()));
    let client = Workload::new("client").setting("intercept", "redirect").setting("dns", "127.0.0.1:15053");
    let client = Pod::start_on(&mesh, host, client, &["--capture-dns"]);
    for family in ["-4", "-6"] {
        let url = "http://api.shop/";
        let answer = client.curl(&[family, url, "--max-time", "20", "--write-out", "%{stderr}%{remote_ip}"]);
        assert_eq!(answer.text(), "hello api.shop", "{family}: {answer:?}");
        let virtual_address = if family == "-4" { "240.240." } else { "fdf0:7069:6c6c:" };
        assert!(answer.message.starts_with(virtual_address), "{answer:?}");
    }
    let all: Value = serde_json::from_str(&client.sidecar.admin_page("/clusters")).expect("JSON");
    let cluster = &all["api.shop:80"];
    assert_eq!(cluster["dns"]["names"]["api.test"]["addresses"], json!(["fd77::dead", v4]), "{cluster}");
    assert_eq!(cluster["hosts"][0]["address"], SocketAddr::new(v4.into(), 8080).to_string(), "who answered: {cluster}");
    assert_eq!(cluster["hosts"][0]["connect_failures"], 0, "{cluster}");
}
