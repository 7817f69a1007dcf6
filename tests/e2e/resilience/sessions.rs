//! Sessions stay on their endpoint, by what clients bring along.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use super::logged;
use crate::support::{Curl, Mesh, Sidecar, Workload, curl, python, read_http_head, run, tcp_server, until};

/// Answers one request with a name.
fn answer(mut stream: TcpStream, name: &str) {
    if !read_http_head(&mut stream).is_empty() {
        let length = name.len();
        let _gone = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
    }
}

fn named(mesh: &Mesh, name: &'static str) -> SocketAddr {
    tcp_server(mesh, move |stream| answer(stream, name))
}

/// A Service `app` with three workloads, of which one is in the mesh.
fn three(mesh: &Mesh) -> Sidecar {
    mesh.service("app", &[("http", 80, "http")]);
    for (workload, name) in [("app-2", "two"), ("app-3", "three")] {
        mesh.outsider(Workload::new(workload).port("http", named(mesh, name)));
    }
    mesh.workload(Workload::new("app-1").port("http", named(mesh, "one")))
}

/// A route of `app` whose only rule says this.
fn route(mesh: &Mesh, rule: &str) {
    mesh.write(
        "route.yaml",
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: app, namespace: shop }}\n\
             spec:\n  parentRefs: [ {{ kind: Service, group: \"\", name: app }} ]\n  rules:\n  - {rule}\n"
        ),
    );
}

fn policy(mesh: &Mesh, section: &str) {
    mesh.write(
        "policy.yaml",
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: app, namespace: shop }}\n\
             spec:\n  targetRefs: [ {{ kind: Service, name: app }} ]\n  sessionPersistence: {section}\n"
        ),
    );
}

fn ask(client: &Sidecar, arguments: &[&str]) -> Curl {
    let url = format!("http://{}/", client.outbound());
    curl(&[&[&url, "-H", "Host: app.shop"], arguments].concat())
}

/// What a response gives to the client, as the header that it comes back with.
fn given(response: &Curl) -> Option<String> {
    let pair = response.header("set-cookie")?.split(';').next()?;
    Some(format!("Cookie: {pair}"))
}

/// Waits until a new client gets a session, with all three workloads known.
fn until_kept(client: &Sidecar) {
    until("sessions are kept", || {
        let clusters: Value = serde_json::from_str(&client.admin_page("/clusters")).unwrap_or_default();
        given(&ask(client, &[])).is_some()
            && clusters["app.shop:80"]["hosts"].as_array().is_some_and(|all| all.len() == 3)
    });
}

fn counted(client: &Sidecar, result: &str) -> f64 {
    client.metric("pillion_sessions_total", &[("result", result)])
}

#[test]
fn a_session_stays_where_it_is_and_moves_when_its_workload_is_gone() {
    let mesh = Mesh::start();
    let _inside = three(&mesh);
    route(&mesh, "{ sessionPersistence: {}, backendRefs: [ { name: app, port: 80 } ] }");
    let client = mesh.workload(Workload::new("client"));
    until_kept(&client);
    let first = ask(&client, &[]);
    let cookie = first.header("set-cookie").expect("a session").to_owned();
    assert!(cookie.starts_with("pillion-session.httproute.shop.app.0="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax") && !cookie.contains("Max-Age"), "{cookie}");
    let session = given(&first).expect("a session");
    for _ in 0..12 {
        let again = ask(&client, &["-H", &session]);
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
    }
    let by_http2 = ask(&client, &["--http2-prior-knowledge", "-H", &session]);
    assert_eq!((by_http2.text(), by_http2.header("set-cookie")), (first.text(), None));
    let others: BTreeMap<String, ()> = (0..12).map(|_| (ask(&client, &[]).text(), ())).collect();
    assert_eq!(others.len(), 3, "new clients go everywhere: {others:?}");
    assert!(counted(&client, "kept") >= 12.0 && counted(&client, "new") >= 12.0);

    let workload = match first.text().as_str() {
        "one" => "app-1",
        "two" => "app-2",
        _ => "app-3",
    };
    mesh.remove(&format!("workload-{workload}.yaml"));
    let mut moved = None;
    until("the session moves", || {
        let response = ask(&client, &["-H", &session]);
        assert_eq!(response.status, 200);
        moved = given(&response).map(|session| (session, response.text()));
        moved.is_some()
    });
    let (session, name) = moved.expect("it moved");
    assert_ne!(name, first.text());
    assert!((0..6).all(|_| ask(&client, &["-H", &session]).text() == name), "and stays there");
    assert!(counted(&client, "moved") >= 1.0);
}

#[test]
fn what_clients_make_up_is_ignored_and_never_dialled() {
    let mesh = Mesh::start();
    let _inside = three(&mesh);
    route(&mesh, "{ sessionPersistence: { sessionName: sid }, backendRefs: [ { name: app, port: 80 } ] }");
    let client = mesh.workload(Workload::new("client"));
    until_kept(&client);
    let trap = TcpListener::bind((mesh.ip(), 0)).expect("a port");
    trap.set_nonblocking(true).expect("a socket");
    let encoded = |text: String| {
        let script = "import base64, sys; print(base64.b64encode(sys.argv[1].encode()).decode())";
        run(python().args(["-c", script, &text])).trim().to_owned()
    };
    let at = trap.local_addr().expect("an address");
    for (text, result) in [
        (encoded(format!("{at};app.shop:80")), "moved"),
        (encoded(format!("{at};other.shop:80")), "moved"),
        (encoded(at.to_string()), "moved"),
        (encoded("localhost:80;app.shop:80".to_owned()), "malformed"),
        ("%%%".to_owned(), "malformed"),
        ("A".repeat(3000), "malformed"),
    ] {
        let before = counted(&client, result);
        let response = ask(&client, &["-H", &format!("Cookie: sid={text}")]);
        assert_eq!(response.status, 200, "{text}");
        assert!(given(&response).is_some_and(|session| !session.contains(&text)), "{response:?}");
        assert_eq!(counted(&client, result), before + 1.0, "{text}");
    }
    assert!(trap.accept().is_err(), "nobody came");
}

#[test]
fn a_strict_session_fails_when_its_workload_is_gone_and_headers_carry_sessions_too() {
    let mesh = Mesh::start();
    let _inside = three(&mesh);
    policy(&mesh, "{ type: Header, sessionName: X-Session, strict: true }");
    let client = mesh.workload(Workload::new("client"));
    until("sessions are kept", || ask(&client, &[]).header("x-session").is_some());
    let first = ask(&client, &[]);
    let session = format!("x-session: {}", first.header("x-session").expect("a session"));
    for _ in 0..9 {
        let again = ask(&client, &["-H", &session]);
        assert_eq!((again.text(), again.header("x-session")), (first.text(), None));
    }
    let workload = match first.text().as_str() {
        "one" => "app-1",
        "two" => "app-2",
        _ => "app-3",
    };
    mesh.remove(&format!("workload-{workload}.yaml"));
    until("the session is lost", || {
        let response = ask(&client, &["-H", &session]);
        (response.status, response.reason()) == (503, "session_lost")
    });
    let _refused = curl(&[&format!("http://{}/lost", client.outbound()), "-H", "Host: app.shop", "-H", &session]);
    assert_eq!(logged(&client, "/lost"), ("session_lost".to_owned(), "UH".to_owned()));
    assert_eq!(ask(&client, &[]).status, 200, "a new client is served");
    assert!(counted(&client, "lost") >= 1.0);
}

#[test]
fn an_ejected_workload_keeps_no_session() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    let failing = tcp_server(&mesh, |mut stream| {
        read_http_head(&mut stream);
        let _gone = stream.write_all(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    mesh.outsider(Workload::new("app-1").port("http", failing));
    mesh.outsider(Workload::new("app-2").port("http", named(&mesh, "well")));
    policy(&mesh, "{ type: Header, sessionName: x-session }");
    let client = mesh.workload(Workload::new("client"));
    let mut session = String::new();
    until("a session is on the one that fails", || {
        let response = ask(&client, &[]);
        let given = response.header("x-session").filter(|_| response.status == 500);
        session = given.map(|given| format!("x-session: {given}")).unwrap_or_default();
        !session.is_empty()
    });
    assert!((0..5).all(|_| ask(&client, &["-H", &session]).status == 500), "it stays there");

    mesh.edit(
        "policy.yaml",
        "x-session }",
        "x-session }\n  breaker: { consecutiveFailures: 2, openTime: 1h, maxOpenTime: 1h }",
    );
    until("the session moves", || {
        let response = ask(&client, &["-H", &session]);
        response.text() == "well" && response.header("x-session").is_some()
    });
    mesh.edit("policy.yaml", "x-session }", "x-session, strict: true }");
    until("the session has no other place", || {
        let response = ask(&client, &["-H", &session]);
        (response.status, response.reason()) == (503, "session_lost")
    });
    assert_eq!(ask(&client, &[]).text(), "well");
}

#[test]
fn sessions_end_after_their_time() {
    let mesh = Mesh::start();
    let _inside = three(&mesh);
    policy(&mesh, "{ sessionName: sid, absoluteTimeout: 1h, cookieConfig: { lifetimeType: Permanent } }");
    let client = mesh.workload(Workload::new("client"));
    until_kept(&client);
    let cookie = ask(&client, &[]).header("set-cookie").expect("a session").to_owned();
    assert!(cookie.ends_with("; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");

    policy(&mesh, "{ sessionName: sid, idleTimeout: 1h }");
    until("a session is kept, and given anew each time", || {
        let session = given(&ask(&client, &[])).expect("a session");
        let before = counted(&client, "kept");
        given(&ask(&client, &["-H", &session])).is_some() && counted(&client, "kept") > before
    });

    policy(&mesh, "{ sessionName: sid, absoluteTimeout: 1s }");
    until("a session has ended", || {
        let session = given(&ask(&client, &[])).expect("a session");
        // Whoever keeps on asking does not keep it.
        until("it ends", || given(&ask(&client, &["-H", &session])).is_some());
        counted(&client, "expired") >= 1.0
    });
}

#[test]
fn a_migration_moves_new_callers_by_one_number_and_leaves_sessions_where_they_are() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    for name in ["old", "new"] {
        mesh.service(name, &[("http", 80, "http")]);
        for number in 1..=2 {
            let workload = Workload::new(&format!("{name}-{number}")).app(name).port("http", named(&mesh, name));
            mesh.outsider(workload);
        }
    }
    let rule = "{ sessionPersistence: {}, backendRefs: [ { name: old, port: 80, weight: 1 }, { name: new, port: 80, weight: 1 } ] }";
    route(&mesh, rule);
    let client = mesh.workload(Workload::new("client"));
    until("sessions are kept", || given(&ask(&client, &[])).is_some());
    let sessions: Vec<(String, String)> = (0..20)
        .map(|_| {
            let first = ask(&client, &[]);
            (given(&first).expect("a session"), first.text())
        })
        .collect();
    let (old, new): (Vec<_>, Vec<_>) = sessions.iter().partition(|(_, name)| name == "old");
    assert!(old.len() >= 2 && new.len() >= 2, "{} and {} of 20", old.len(), new.len());
    let stays = |(session, name): &&(String, String)| ask(&client, &["-H", session]).text() == *name;
    assert!(sessions.iter().all(|session| stays(&session)));

    mesh.edit("route.yaml", "name: new, port: 80, weight: 1", "name: new, port: 80, weight: 999999");
    until("new callers go to the new one", || (0..20).all(|_| ask(&client, &[]).text() == "new"));
    assert!(sessions.iter().all(|session| stays(&session)), "both keep their callers");

    mesh.edit("route.yaml", "name: old, port: 80, weight: 1", "name: old, port: 80, weight: 0");
    until("nobody is left on the old one", || ask(&client, &["-H", &old[0].0]).text() == "new");
    assert!(new.iter().all(stays));
    let moved = ask(&client, &["-H", &old[1].0]);
    assert_eq!((moved.status, moved.text().as_str(), given(&moved).is_some()), (200, "new", true));
}

#[test]
fn without_sessions_callers_are_kept_on_a_backend_by_a_key_of_theirs() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    for name in ["old", "new"] {
        mesh.service(name, &[("http", 80, "http")]);
        mesh.outsider(Workload::new(&format!("{name}-1")).app(name).port("http", named(&mesh, name)));
    }
    route(&mesh, "{ backendRefs: [ { name: old, port: 80, weight: 50 }, { name: new, port: 80, weight: 50 } ] }");
    policy(&mesh, "{}");
    mesh.edit("policy.yaml", "sessionPersistence: {}", "split: { hashOn: [ { header: x-user } ] }");
    let client = mesh.workload(Workload::new("client"));
    let of_users = || -> Vec<String> {
        (0..40).map(|user| ask(&client, &["-H", &format!("x-user: user-{user}")]).text()).collect()
    };
    let mut before = Vec::new();
    until("users stay where they are", || {
        before = of_users();
        of_users() == before && of_users() == before
    });
    let count = |users: &[String]| users.iter().filter(|name| *name == "new").count();
    assert!((5..=35).contains(&count(&before)), "{before:?}");
    mesh.edit("route.yaml", "name: new, port: 80, weight: 50", "name: new, port: 80, weight: 450");
    let mut after = Vec::new();
    until("some have moved", || {
        after = of_users();
        count(&after) > count(&before) && of_users() == after
    });
    let went_back = before.iter().zip(&after).filter(|(before, after)| *before == "new" && *after == "old").count();
    assert_eq!(went_back, 0, "{before:?} {after:?}");
    assert_eq!(of_users(), after);
}
