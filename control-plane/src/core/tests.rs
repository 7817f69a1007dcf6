//! The mesh put together from documents, in tables.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use pillion_wire::name::{Destination, PortName, ServicePort};

use super::{
    mesh::{Finding, Mesh, Objects},
    protocol::Protocol,
    view::{PortView, Share},
};
use crate::document::{Object, read, split::split};

pub(crate) fn objects(text: &str) -> Objects {
    let mut objects = Objects::default();
    for part in split(text) {
        let document = read(part.text, part.line);
        match document.outcome.unwrap().unwrap() {
            Object::Service(it) => drop(objects.services.insert(it.name.clone(), it)),
            Object::Workload(it) => drop(objects.workloads.insert(it.name.clone(), it)),
            Object::Route(it) => drop(objects.routes.insert((it.kind, it.name.clone()), it)),
            Object::Grant(it) => objects.grants.push(it),
            Object::Policy(it) => drop(objects.policies.insert(it.name.clone(), it)),
        }
    }
    objects
}

fn compile(text: &str) -> (Mesh, Vec<Finding>) {
    Mesh::compile(&objects(text), None)
}

fn port(mesh: &Mesh, key: &str) -> Arc<PortView> {
    Arc::clone(mesh.port(&key.parse().unwrap()).unwrap())
}

pub(crate) fn service(name: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{app: {name}}}, ports: {ports}}}\n---\n"
    )
}

pub(crate) fn workload(name: &str, app: &str, spec: &str) -> String {
    format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
         metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\n\
         spec: {{serviceAccount: {app}, {spec}}}\n---\n"
    )
}

pub(crate) fn route(kind: &str, name: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, {parent}}}], rules: {rules}}}\n---\n"
    )
}

#[test]
fn endpoints_are_the_selected_workloads_with_the_port() {
    let (mesh, findings) = compile(
        &[
            service("a", "[{port: 80, targetPort: web}]"),
            workload("a-1", "a", "address: 10.0.0.1, mesh: {port: 15008}, ports: [{name: web, port: 8080}]"),
            workload("a-2", "a", "address: 10.0.0.2, ports: [{name: web, port: 9090}]"),
            workload("a-3", "a", "address: 10.0.0.3, ports: [{name: other, port: 1}]"),
            workload("b-1", "b", "address: 10.0.0.4, ports: [{name: web, port: 8080}]"),
        ]
        .concat(),
    );
    let view = port(&mesh, "a.shop:80");
    let addresses: Vec<String> = view.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:8080", "10.0.0.2:9090"]);
    assert_eq!(view.endpoints[0].mesh.as_ref().unwrap().service_account, "a");
    assert!(view.endpoints[1].mesh.is_none());
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].reason.contains("1 of 3"), "{findings:?}");
}

#[test]
fn the_protocol_comes_from_the_strongest_source() {
    for (service_port, workload_port, expected, inbound) in [
        ("appProtocol: grpc", "protocol: http", Protocol::Grpc, Protocol::Grpc),
        ("name: grpc", "protocol: http", Protocol::Http, Protocol::Http),
        ("name: http-web", "name: x", Protocol::Http, Protocol::Http),
        ("name: web", "name: grpc-api", Protocol::Grpc, Protocol::Grpc),
        ("name: web", "name: x", Protocol::Auto, Protocol::Auto),
        ("appProtocol: https", "name: x", Protocol::Tls, Protocol::Tls),
        ("name: web", "protocol: tls", Protocol::Tls, Protocol::Tls),
        ("name: https-web", "name: x", Protocol::Tls, Protocol::Tls),
        ("appProtocol: strange", "name: x", Protocol::Auto, Protocol::Auto),
    ] {
        let (mesh, _) = compile(
            &[
                service("a", &format!("[{{port: 80, targetPort: 8080, {service_port}}}]")),
                workload(
                    "a-1",
                    "a",
                    &format!("address: 10.0.0.1, mesh: {{port: 15008}}, ports: [{{port: 8080, {workload_port}}}]"),
                ),
            ]
            .concat(),
        );
        let case = format!("{service_port} / {workload_port}");
        assert_eq!(port(&mesh, "a.shop:80").protocol, expected, "{case}");
        let own = mesh.workloads().next().unwrap();
        assert_eq!(own.ports[0].protocol, inbound, "{case}");
    }
}

#[test]
fn names_and_virtual_addresses_resolve() {
    let text = service("a", "[{port: 80}]").replace("selector", "clusterIP: 10.96.0.1, selector");
    let (mesh, _) = compile(&text);
    for (destination, namespace, found) in [
        ("a:80", "shop", true),
        ("a:80", "other", false),
        ("a.shop:80", "other", true),
        ("a.shop.svc.cluster.local:80", "other", true),
        ("a.shop:81", "shop", false),
        ("10.96.0.1:80", "other", true),
        ("10.96.0.2:80", "shop", false),
        ("b.shop:80", "shop", false),
    ] {
        let destination: Destination = destination.parse().unwrap();
        assert_eq!(mesh.resolve(&destination, namespace).is_some(), found, "{destination}");
    }
}

/// What a destination leads to: `name protocol endpoint[+mesh port]`.
fn reached(mesh: &Mesh, destination: &str) -> Option<String> {
    let view = mesh.resolve(&destination.parse().unwrap(), "other")?;
    let endpoints: Vec<String> = view
        .endpoints
        .iter()
        .map(|endpoint| {
            let mesh = endpoint.mesh.as_ref().map(|inside| format!("+{}", inside.port)).unwrap_or_default();
            format!("{}{mesh}", endpoint.address)
        })
        .collect();
    assert!(matches!(&view.key, PortName::Service(_)) || view.http.is_none() && view.tcp.is_none());
    Some(format!("{} {} {}", view.key, view.protocol.name(), endpoints.join(" ")))
}

#[test]
fn a_workload_is_reached_by_its_own_address_on_any_port() {
    let (mesh, findings) = compile(
        &[
            service("a", "[{port: 80, targetPort: 8080, appProtocol: grpc}]")
                .replace("selector", "clusterIP: 10.96.0.1, selector"),
            workload(
                "a-1",
                "a",
                "address: 10.0.0.1, addresses: ['fd00::1'], mesh: {port: 15008},
                 ports: [{port: 8080}, {port: 9090, protocol: http}]",
            ),
            workload("b-1", "b", "address: 10.0.0.2, ports: [{name: tcp-x, port: 7000}]"),
            route("HTTPRoute", "r", "name: a", "[{backendRefs: [{name: a, port: 80}]}]"),
        ]
        .concat(),
    );
    assert!(findings.is_empty(), "{findings:?}");
    for (destination, expected) in [
        ("10.0.0.1:8080", Some("10.0.0.1:8080 grpc 10.0.0.1:8080+15008")),
        ("[fd00::1]:8080", Some("[fd00::1]:8080 grpc [fd00::1]:8080+15008")),
        ("10.0.0.1:9090", Some("10.0.0.1:9090 http 10.0.0.1:9090+15008")),
        ("10.0.0.1:5432", Some("10.0.0.1:5432 auto 10.0.0.1:5432+15008")),
        ("10.0.0.2:7000", Some("10.0.0.2:7000 tcp 10.0.0.2:7000")),
        ("10.0.0.2:22", Some("10.0.0.2:22 auto 10.0.0.2:22")),
        // The sidecar itself, and addresses of nobody.
        ("10.0.0.1:15008", None),
        ("10.0.0.3:80", None),
        // A virtual address leads to the Service and to its ports only.
        ("10.96.0.1:80", Some("a.shop:80 grpc 10.0.0.1:8080+15008")),
        ("10.96.0.1:8080", None),
    ] {
        assert_eq!(reached(&mesh, destination).as_deref(), expected, "{destination}");
    }
}

#[test]
fn a_shared_address_leads_only_where_one_workload_says_so() {
    let local = |name: &str, mesh: u16, port: u16| {
        let spec = format!(
            "address: 127.0.0.1, mesh: {{port: {mesh}}}, ports: [{{port: {port}, application: '127.0.0.1:1'}}]"
        );
        workload(name, name, &spec)
    };
    let (mesh, findings) = compile(
        &[
            local("a", 15008, 8080),
            local("b", 15009, 8081),
            local("c", 15010, 9000),
            local("d", 15011, 9000),
            workload("node-1", "n", "address: 10.0.0.9, ports: [{port: 80}]"),
            workload("node-2", "n", "address: 10.0.0.9, ports: [{port: 81}]"),
            workload("alone", "n", "address: 127.0.0.2, ports: [{port: 80}]"),
        ]
        .concat(),
    );
    for (destination, expected) in [
        ("127.0.0.1:8080", Some("127.0.0.1:8080 auto 127.0.0.1:8080+15008")),
        ("127.0.0.1:8081", Some("127.0.0.1:8081 auto 127.0.0.1:8081+15009")),
        ("127.0.0.1:9000", None),
        ("127.0.0.1:22", None),
        ("127.0.0.1:15008", None),
        ("10.0.0.9:81", Some("10.0.0.9:81 auto 10.0.0.9:81")),
        ("10.0.0.9:22", None),
        // Everybody's own, even when a single workload names it.
        ("127.0.0.2:80", Some("127.0.0.2:80 auto 127.0.0.2:80")),
        ("127.0.0.2:22", None),
    ] {
        assert_eq!(reached(&mesh, destination).as_deref(), expected, "{destination}");
    }
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(!findings[0].refused && findings[0].reason.contains("shop/c"), "{findings:?}");
}

#[test]
fn hosts_have_the_addresses_that_callers_dial() {
    let headless = service("db", "[{port: 5432}]").replace("selector", "clusterIP: None, selector");
    let given = service("a", "[{port: 80}]").replace("selector", "clusterIPs: [10.96.0.1, 'fd00::a'], selector");
    let text = [
        headless.as_str(),
        &given,
        &headless.replace("name: db", "name: empty").replace("app: db", "app: none"),
        &service("auto", "[{port: 80}]"),
        &workload("db-0", "db", "address: 10.0.0.7, addresses: ['fd00::7'], mesh: {port: 15008}"),
        &workload("db-1", "db", "address: 10.0.0.6"),
    ]
    .concat();
    let (mesh, _) = compile(&text);
    let addresses = |mesh: &Mesh, host: &str, namespace: &str| {
        let found = mesh.host_addresses(host, namespace)?;
        Some(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    for (host, namespace, expected) in [
        ("a", "shop", Some("10.96.0.1 fd00::a")),
        ("a", "other", None),
        ("a.shop", "other", Some("10.96.0.1 fd00::a")),
        ("a.shop.svc", "other", Some("10.96.0.1 fd00::a")),
        ("a.shop.svc.cluster.local", "other", Some("10.96.0.1 fd00::a")),
        ("db.shop", "other", Some("10.0.0.6 10.0.0.7 fd00::7")),
        ("db-0.db.shop", "other", Some("10.0.0.7 fd00::7")),
        ("db-1.db.shop.svc.cluster.local", "other", Some("10.0.0.6")),
        ("empty.shop", "other", Some("")),
        ("db-2.db.shop", "other", None),
        ("db-0.a.shop", "other", None),
        ("db-0", "shop", None),
        ("www.example.org", "shop", None),
    ] {
        assert_eq!(addresses(&mesh, host, namespace).as_deref(), expected, "{host}");
    }
    assert_eq!(mesh.host_addresses("auto.shop", "other").unwrap().len(), 2);
    let by_name = reached(&mesh, "db-0.db.shop.svc:5432");
    assert_eq!(by_name.as_deref(), Some("10.0.0.7:5432 auto 10.0.0.7:5432+15008"));
    let automatic = mesh.host_addresses("auto.shop", "shop").unwrap()[1];
    let resolved = mesh.resolve(&Destination::new(&automatic.to_string(), 80).unwrap(), "other");
    assert_eq!(resolved.unwrap().key.to_string(), "auto.shop:80");

    let (after, _) = Mesh::compile(&objects(&text.replace("name: db-1", "name: gone")), Some(&mesh));
    assert_eq!(addresses(&after, "db-1.db.shop", "other"), None);
}

#[test]
fn a_virtual_address_belongs_to_one_service() {
    let at = |name: &str| service(name, "[{port: 80}]").replace("selector", "clusterIP: 10.96.0.1, selector");
    let (mesh, findings) = compile(&[at("a"), at("b")].concat());
    assert_eq!(reached(&mesh, "10.96.0.1:80").as_deref(), Some("a.shop:80 auto "));
    assert_eq!(mesh.host_addresses("b.shop", "other"), Some(&[][..]));
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].refused && findings[0].reason.contains("shop/a"), "{findings:?}");
}

#[test]
fn backends_that_do_not_exist_take_their_share_and_fail() {
    let (mesh, findings) = compile(&[
        service("a", "[{port: 80}]"),
        route(
            "HTTPRoute",
            "r",
            "name: a",
            "[{matches: [{path: {value: /x}}], backendRefs: [{name: a, port: 80, weight: 9}, {name: gone, port: 80}]},
              {matches: [{path: {value: /y}}], backendRefs: [{name: gone, port: 80}, {name: a, port: 81}]},
              {backendRefs: [{name: a, port: 80, weight: 0}]}]",
        ),
    ]
    .concat());
    let view = port(&mesh, "a.shop:80");
    let entries = view.http.as_ref().unwrap();
    let shares: BTreeMap<&str, &[Share]> =
        entries.iter().map(|entry| (entry.name.as_str(), entry.shares.as_slice())).collect();
    assert_eq!(shares["HTTPRoute/shop/r/0"].len(), 2);
    assert_eq!(shares["HTTPRoute/shop/r/0"][1].target, None);
    assert!(shares["HTTPRoute/shop/r/1"].is_empty());
    assert!(shares["HTTPRoute/shop/r/2"].is_empty());
    let paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(
        paths,
        ["spec.rules[0].backendRefs[1]", "spec.rules[1].backendRefs[0]", "spec.rules[1].backendRefs[1]",]
    );
}

#[test]
fn routes_concern_the_ports_they_name() {
    let (mesh, findings) = compile(
        &[
            service("a", "[{port: 80, name: web}, {port: 81, name: admin}, {port: 82, name: tcp-x}]"),
            route("HTTPRoute", "r", "name: a, port: 80", "[{backendRefs: [{name: a, port: 80}]}]"),
            route("GRPCRoute", "g", "name: a, sectionName: admin", "[{backendRefs: [{name: a, port: 81}]}]"),
            route("TCPRoute", "t", "name: a, port: 82", "[{backendRefs: [{name: a, port: 82}]}]"),
            route("HTTPRoute", "lost", "name: a, port: 99", "[{backendRefs: [{name: a, port: 80}]}]"),
            route("HTTPRoute", "lost-too", "name: b", "[{backendRefs: [{name: a, port: 80}]}]"),
        ]
        .concat(),
    );
    assert_eq!(port(&mesh, "a.shop:80").http.as_ref().unwrap()[0].name, "HTTPRoute/shop/r/0");
    assert_eq!(port(&mesh, "a.shop:81").http.as_ref().unwrap()[0].name, "GRPCRoute/shop/g/0");
    assert!(port(&mesh, "a.shop:82").http.is_none());
    assert_eq!(port(&mesh, "a.shop:82").tcp.as_ref().unwrap().len(), 1);
    assert!(port(&mesh, "a.shop:80").tcp.is_none());
    assert_eq!(findings.len(), 2, "{findings:?}");
}

#[test]
fn tls_is_routed_by_the_name_that_is_asked_for() {
    let named = |name: &str, age: &str, hostnames: &str, backend: &str| {
        route(
            "TLSRoute",
            name,
            "name: a",
            &format!("[{{backendRefs: [{{name: {backend}, port: 443}}]}}], hostnames: {hostnames}"),
        )
        .replace("namespace: shop", &format!("namespace: shop, creationTimestamp: {age}"))
    };
    let (mesh, findings) = compile(
        &[
            service("a", "[{port: 443, appProtocol: tls}, {port: 80, appProtocol: http}, {port: 7, appProtocol: tcp}, {port: 9}]"),
            service("b", "[{port: 443}]"),
            named("late", "'2026-02-01T00:00:00Z'", "[x.example, y.example]", "b"),
            named("early", "'2026-01-01T00:00:00Z'", "[x.example, '*.example']", "a"),
            named("all", "'2026-03-01T00:00:00Z'", "[]", "gone"),
            named("never", "'2026-04-01T00:00:00Z'", "[x.example]", "b"),
            route("TLSRoute", "lost", "name: a, port: 80", "[{backendRefs: [{name: a, port: 443}]}]"),
        ]
        .concat(),
    );
    let expected = [
        ("TLSRoute/shop/early", vec!["x.example", "*.example"], Some("a.shop:443")),
        ("TLSRoute/shop/late", vec!["y.example"], Some("b.shop:443")),
        ("TLSRoute/shop/all", vec![], None),
    ];
    for (key, routed) in [("a.shop:443", true), ("a.shop:7", true), ("a.shop:9", true), ("a.shop:80", false)] {
        let view = port(&mesh, key);
        let found: Vec<_> = view
            .tls
            .iter()
            .map(|entry| {
                let target = entry.shares.first().and_then(|share| share.target.as_ref()).map(ToString::to_string);
                (entry.name.as_str(), entry.server_names.clone(), target)
            })
            .collect();
        let expected = expected
            .iter()
            .map(|(name, names, target)| {
                (*name, names.iter().map(ToString::to_string).collect(), target.map(str::to_owned))
            })
            .collect::<Vec<_>>();
        assert_eq!(found, if routed { expected } else { vec![] }, "{key}");
    }
    let paths: Vec<&str> = findings.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(paths, ["spec.rules[0].backendRefs[0]", "spec.parentRefs[0]"], "{findings:?}");
}

#[test]
fn another_namespaces_service_needs_a_grant() {
    let foreign = service("b", "[{port: 80}]").replace("namespace: shop", "namespace: bank");
    let own = service("a", "[{port: 80}]");
    let to_bank = route("HTTPRoute", "r", "name: a", "[{backendRefs: [{name: b, namespace: bank, port: 80}]}]");
    let grant = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: g, namespace: bank}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}}], \
             to: [{{group: '', kind: Service{name}}}]}}\n---\n"
        )
    };
    for (extra, usable) in
        [(String::new(), false), (grant(""), true), (grant(", name: b"), true), (grant(", name: c"), false)]
    {
        let (mesh, _) = compile(&[own.as_str(), &foreign, &to_bank, &extra].concat());
        let view = port(&mesh, "a.shop:80");
        assert_eq!(!view.http.as_ref().unwrap()[0].shares.is_empty(), usable, "{extra}");
    }
}

#[test]
fn a_mesh_address_belongs_to_one_workload() {
    let spec = "address: 10.0.0.1, mesh: {port: 15008}";
    let (mesh, findings) = compile(&[workload("a-1", "a", spec), workload("a-2", "a", spec)].concat());
    assert_eq!(mesh.workloads().count(), 1);
    assert!(findings[0].refused);
    assert!(reached(&mesh, "10.0.0.1:80").is_some(), "what is refused does not claim the address");
    assert_eq!(findings[0].path, "spec.mesh.port");
}

#[test]
fn what_did_not_change_is_the_same_view() {
    let text = |weight: u32| {
        [
            service("a", "[{port: 80}]"),
            service("b", "[{port: 80}]"),
            workload("a-1", "a", "address: 10.0.0.1, mesh: {port: 15008}, ports: [{port: 80}]"),
            route(
                "HTTPRoute",
                "r",
                "name: a",
                &format!("[{{backendRefs: [{{name: b, port: 80, weight: {weight}}}]}}]"),
            ),
        ]
        .concat()
    };
    let (before, _) = compile(&text(1));
    let (after, _) = Mesh::compile(&objects(&text(2)), Some(&before));
    let same = |key: &str| Arc::ptr_eq(&port(&before, key), &port(&after, key));
    assert!(!same("a.shop:80"));
    assert!(same("b.shop:80"));
    assert!(Arc::ptr_eq(before.workloads().next().unwrap(), after.workloads().next().unwrap()));
}

/// Many services of a few workloads each: what a mesh of that size looks like.
pub(crate) fn many(services: usize) -> String {
    let mut text = String::new();
    for number in 0..services {
        let _ = write!(text, "{}", service(&format!("s{number}"), "[{port: 80}]"));
        for copy in 0..5 {
            let address = format!("10.{}.{}.{copy}", number / 250, number % 250 + 1);
            let spec = format!("address: {address}, mesh: {{port: 15008}}, ports: [{{port: 80}}]");
            let name = format!("s{number}-{copy}");
            let _ = write!(text, "{}", workload(&name, &format!("s{number}"), &spec));
        }
    }
    text
}

#[test]
fn ten_thousand_endpoints_take_ten_times_a_thousand() {
    let time = |services: usize| {
        let objects = objects(&many(services));
        // The best of a few, since others use the machine too.
        (0..5)
            .map(|_| {
                let start = tokio::time::Instant::now();
                let (mesh, _) = Mesh::compile(&objects, None);
                assert_eq!(mesh.ports().count(), services);
                start.elapsed()
            })
            .min()
            .unwrap()
    };
    let (small, large) = (time(200), time(2000));
    assert!(large < small * 40, "1,000: {small:?}, 10,000: {large:?}");
    let key: ServicePort = "s7.shop:80".parse().unwrap();
    assert_eq!(compile(&many(10)).0.port(&key).unwrap().endpoints.len(), 5);
}

#[test]
fn a_rate_limit_service_that_cannot_be_asked_is_told_and_its_workloads_ports_are_limited() {
    let policy = |service: &str, rest: &str| {
        format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: a}}], globalRateLimit: {{service: {{name: {service}, port: 80}}, \
             domain: d, {rest} descriptors: [{{entries: [{{type: caller}}]}}]}}}}\n---\n"
        )
    };
    let world = |policy: String| {
        let services = [service("a", "[{port: 80}]"), service("limits", "[{port: 80, appProtocol: grpc}]")].concat();
        let spec = "address: 10.0.0.1, ports: [{port: 80}, {port: 81}], mesh: {port: 15008}";
        compile(
            &[services, service("web", "[{port: 80, appProtocol: http}]"), workload("a-1", "a", spec), policy].concat(),
        )
    };
    for (asked, rest, wanted) in [
        ("none", "", Some("there is no none.shop:80: every request is let through")),
        ("none", "onFailure: deny,", Some("there is no none.shop:80: every request is refused")),
        ("web", "", Some("the appProtocol of web.shop:80 is not grpc: every request is let through")),
    ] {
        let (mesh, findings) = world(policy(asked, rest));
        let told = findings.iter().find(|finding| finding.path == "spec.globalRateLimit.service");
        assert_eq!(told.map(|finding| finding.reason.as_str()), wanted);
        let ports = &mesh.workloads().next().unwrap().ports;
        let limited: Vec<bool> = ports.iter().map(|port| port.global_rate_limit.is_some()).collect();
        assert_eq!(limited, [true, false], "{asked}");
    }
    let (_, findings) = world(policy("limits", ""));
    assert!(findings.iter().all(|finding| finding.path != "spec.globalRateLimit.service"), "{findings:?}");
    // Under another name the workload is what is asked: it does not ask itself.
    let alias = service("b", "[{port: 80, appProtocol: grpc}]").replace("app: b", "app: a");
    let (mesh, findings) = world([alias, policy("b", "")].concat());
    assert_eq!(mesh.workloads().next().unwrap().ports[0].global_rate_limit, None);
    let wanted = "port 80 serves a rate-limit service: globalRateLimit has no effect on it";
    assert!(findings.iter().any(|finding| finding.reason == wanted), "{findings:?}");
}

#[test]
fn a_backend_to_fall_back_on_that_does_not_exist_is_told() {
    let policy = "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Service, name: a}], \
                  fallback: {backends: [{name: a, port: 80}, {name: a, port: 81}, {name: c, port: 80}]}}\n---\n";
    let (mesh, findings) = compile(&[service("a", "[{port: 80}]"), policy.to_owned()].concat());
    let told: Vec<String> = findings.iter().map(|finding| format!("{}: {}", finding.path, finding.reason)).collect();
    assert_eq!(
        told,
        [
            "spec.fallback.backends[1]: there is no a.shop:81: it is passed over",
            "spec.fallback.backends[2]: there is no c.shop:80: it is passed over",
        ]
    );
    assert_eq!(port(&mesh, "a.shop:80").policy.fallback.as_ref().map(|fallback| fallback.backends.len()), Some(3));
}

#[test]
fn what_two_services_say_differently_of_one_workload_port_and_what_says_nothing_at_all_is_told() {
    let policy = |name: &str, sections: &str| {
        format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: {name}}}], {sections}}}\n---\n"
        )
    };
    let limits = |requests: u32| format!("rateLimits: [{{name: x, requests: {requests}, per: 1m}}]");
    let (mesh, mut findings) = compile(
        &[
            service("a", "[{port: 80, targetPort: web}]"),
            service("b", "[{port: 80, targetPort: web}]").replace("app: b", "app: a"),
            service("c", "[{port: 80, targetPort: web}]").replace("app: c", "app: a"),
            service("stream", "[{port: 7000, appProtocol: tcp}]"),
            service("far", "[{port: 80}]")
                .replace("selector: {app: far}", "type: ExternalName, externalName: far.example"),
            workload("w", "a", "address: 10.0.0.1, ports: [{name: web, port: 8080}]"),
            policy("a", &limits(1)),
            policy("b", &limits(2)),
            policy("c", &limits(1)),
            policy("stream", &limits(1)),
            policy("far", &limits(1)),
        ]
        .concat(),
    );
    findings.sort_by(|a, b| a.reason.cmp(&b.reason));
    let told: Vec<&str> = findings.iter().map(|finding| finding.reason.as_str()).collect();
    assert_eq!(
        told,
        [
            "no such port carries requests: rateLimits has no effect on it",
            "port 8080 has rateLimits of Service a.shop:80; what the policy of b.shop:80 says of it has no effect here",
            "the Service is a name outside the mesh, with no sidecar there: rateLimits has no effect",
        ]
    );
    assert_eq!(findings.iter().filter(|finding| finding.refused).count(), 0);
    assert!(port(&mesh, "b.shop:80").policy.rate_limits.is_some());
}

#[test]
fn the_nearest_and_oldest_policy_says_a_section() {
    let policy = |name: &str, created: &str, target: &str, connect: &str| {
        format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\n\
             metadata: {{name: {name}, namespace: shop, creationTimestamp: '{created}'}}\n\
             spec: {{targetRefs: [{target}], timeouts: {{connect: {connect}}}}}\n---\n"
        )
    };
    let service_a = "{kind: Service, name: a}";
    let (mesh, findings) = compile(
        &[
            service("a", "[{name: http, port: 80}, {name: other, port: 81}]"),
            policy("young", "2026-02-02T00:00:00Z", service_a, "1s"),
            policy("old", "2026-01-01T00:00:00Z", service_a, "2s"),
            policy("port", "2026-03-03T00:00:00Z", "{kind: Service, name: a, sectionName: http}", "3s"),
            policy("lost", "2026-01-01T00:00:00Z", "{kind: Service, name: b}", "4s"),
            policy("typo", "2026-01-01T00:00:00Z", "{kind: Service, name: a, sectionName: htp}", "5s"),
        ]
        .concat(),
    );
    let connect = |key: &str| port(&mesh, key).policy.timeouts.as_ref().unwrap().connect.unwrap().as_secs();
    assert_eq!(connect("a.shop:80"), 3, "the port's own");
    assert_eq!(connect("a.shop:81"), 2, "the oldest of the Service");
    let mut told: Vec<String> =
        findings.iter().map(|finding| format!("{:?}: {}", finding.subject, finding.reason)).collect();
    told.sort();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("lost") && told[0].contains("no Service shop/b"), "{told:?}");
    assert!(told[1].contains("typo") && told[1].contains("no such port"), "{told:?}");
    assert!(told[2].contains("young") && told[2].contains("timeouts (of shop/old)"), "{told:?}");
}

#[test]
fn a_subset_is_a_part_of_its_service_and_an_empty_or_unknown_one_is_told() {
    let workload = |name: &str, version: &str| {
        format!(
            "---\napiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
             metadata: {{name: {name}, namespace: shop, labels: {{app: web, version: {version}}}}}\n\
             spec: {{address: 10.0.0.{}, ports: [{{name: http, port: 80}}]}}\n",
            name.len()
        )
    };
    let text = format!(
        "{}{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}\n\
         ---\napiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{targetRefs: [{{kind: Service, name: web}}], subsets: [{{name: v1, labels: {{version: v1}}}}, \
         {{name: v3, labels: {{version: v3}}}}]}}\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{{backendRefs: [\
         {{group: pillion.dev, kind: Subset, name: web.v1, port: 80}}, \
         {{group: pillion.dev, kind: Subset, name: web.v2, port: 80}}]}}]}}\n",
        workload("a", "v1"),
        workload("bb", "v2")
    );
    let (mesh, findings) = compile(&text);
    let port = |name: &str| mesh.port(&name.parse().unwrap()).unwrap();
    assert_eq!((port("web.shop:80").endpoints.len(), port("web~v1.shop:80").endpoints.len()), (2, 1));
    assert!(port("web~v3.shop:80").endpoints.is_empty() && mesh.port(&"web~v2.shop:80".parse().unwrap()).is_none());
    let shares = &port("web.shop:80").http.as_ref().unwrap()[0].shares;
    let targets: Vec<_> = shares.iter().map(|share| share.target.as_ref().map(ToString::to_string)).collect();
    assert_eq!(targets, [Some("web~v1.shop:80".to_owned()), None]);
    let told: Vec<(&str, bool)> =
        findings.iter().map(|found| (found.path.as_str(), found.reason.contains("v2"))).collect();
    assert_eq!(told, [("spec.subsets[1].labels", false), ("spec.rules[0].backendRefs[1]", true)]);
}
