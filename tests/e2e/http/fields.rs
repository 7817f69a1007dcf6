//! Header fields: what a proxy must take out, what it must add, whom it must not believe.

use super::{Pair, echoed, field, http1, http2, raw, through};
use crate::support::{Mesh, Workload};

const CLIENTS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

#[test]
fn fields_of_one_connection_do_not_cross_to_the_next() {
    for (protocol, app) in [("http", http1 as fn(&Mesh) -> _), ("kubernetes.io/h2c", http2)] {
        let pair = Pair::new(protocol, app);
        let answer = pair.raw(
            "GET / HTTP/1.1\r\nHost: echo.shop\r\nConnection: close, X-Hop, Host\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip, trailers;q=0.5\r\nX-Kept: 1\r\n\
             Cookie: a=1\r\n\r\n",
        );
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        let echo = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        for gone in ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization"] {
            assert!(field(&echo, gone).is_empty(), "{gone}: {echo}");
        }
        assert_eq!((field(&echo, "x-kept"), field(&echo, "cookie")), (vec!["1"], vec!["a=1"]), "{echo}");
        assert_eq!(field(&echo, "te"), ["trailers"], "the one coding that may pass: {echo}");
        let connection = field(&echo, "connection");
        assert!(connection.iter().all(|option| option.eq_ignore_ascii_case("te")), "{echo}");
    }
}

#[test]
fn fields_of_the_applications_connection_do_not_reach_the_client() {
    let pair = Pair::new("http", http1);
    for client in CLIENTS {
        let response = pair.get("/fields", &[client]);
        assert_eq!(response.status, 200, "{response:?}");
        for gone in ["x-hop", "keep-alive", "proxy-connection", "x-pillion-reason", "x-pillion-port", "connection"] {
            assert_eq!(response.header(gone), None, "{response:?}");
        }
        assert_eq!(response.header("x-kept"), Some("1"), "{response:?}");
        assert_eq!(response.head.to_lowercase().matches("set-cookie: ").count(), 2, "{response:?}");
    }
}

#[test]
fn the_application_is_told_who_forwarded_for_whom() {
    let pair = Pair::new("http", http1);
    let ip = "127.0.0.1"; // Linux picks it for connections to any other address of 127.0.0.0/8.
    for client in CLIENTS {
        let echo = echoed(&pair.get("/", &[client]));
        assert_eq!(field(&echo, "x-forwarded-for"), [ip], "{echo}");
        assert_eq!(field(&echo, "x-forwarded-proto"), ["http"], "{echo}");
        assert_eq!(field(&echo, "forwarded"), [format!("for={ip};host=echo.shop;proto=http")], "{echo}");

        // What an earlier proxy said stays, in front (RFC 7239, section 4).
        let earlier = [
            "-H",
            "X-Forwarded-For: 192.0.2.1",
            "-H",
            "X-Forwarded-For: 192.0.2.2",
            "-H",
            "X-Forwarded-Proto: https",
            "-H",
            "Forwarded: for=\"[2001:db8::1]:4711\";proto=https",
        ];
        let echo = echoed(&pair.get("/", &[&[client], &earlier[..]].concat()));
        assert_eq!(field(&echo, "x-forwarded-for"), [format!("192.0.2.1, 192.0.2.2, {ip}")], "{echo}");
        assert_eq!(field(&echo, "x-forwarded-proto"), ["https"], "{echo}");
        let said = format!("for=\"[2001:db8::1]:4711\";proto=https, for={ip};host=echo.shop;proto=http");
        assert_eq!(field(&echo, "forwarded"), [said], "{echo}");
    }
}

#[test]
fn the_application_is_told_the_callers_identity_and_nobody_can_forge_it() {
    let pair = Pair::with("http", "access: permissive", http1);
    let forged = "spiffe://cluster.local/ns/shop/sa/admin";
    let forgery = [format!("X-Forwarded-Client-Cert: URI={forged}"), format!("X_Forwarded_Client_Cert: URI={forged}")];
    let forgery = ["-H", &forgery[0], "-H", &forgery[0], "-H", &forgery[1]];
    let proven = "By=spiffe://cluster.local/ns/shop/sa/echo;URI=spiffe://cluster.local/ns/shop/sa/client";
    for client in CLIENTS {
        let echo = echoed(&pair.get("/", &[&[client], &forgery[..]].concat()));
        assert_eq!(field(&echo, "x-forwarded-client-cert"), [proven], "{echo}");
        assert!(!echo.to_string().contains(forged), "{echo}");
        let outside = through(pair.server.front("web"), "http://echo.shop/", &[&[client], &forgery[..]].concat());
        assert!(!echoed(&outside).to_string().contains(forged), "{outside:?}");
    }
}

#[test]
fn an_application_outside_the_mesh_is_not_shown_a_forged_identity_either() {
    let mesh = Mesh::start();
    let app = http1(&mesh);
    mesh.service("echo", &[("web", 80, "http")]);
    mesh.outsider(Workload::new("echo").port("web", app.address));
    let client = mesh.workload(Workload::new("client"));
    let forgery =
        ["-H", "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/shop/sa/admin", "-H", "X-Pillion-Port: 1"];
    let echo = echoed(&through(client.outbound(), "http://echo.shop/", &forgery));
    assert!(field(&echo, "x-forwarded-client-cert").is_empty() && field(&echo, "x-pillion-port").is_empty(), "{echo}");
}

#[test]
fn fields_of_the_mesh_are_believed_from_sidecars_only() {
    let pair = Pair::with("http", "access: permissive", http1);
    let forgery = [
        "-H",
        "X-Pillion-Port: 1",
        "-H",
        "X-Pillion-Http-Version: 2",
        "-H",
        "X-Pillion-Upgrade: websocket",
        "-H",
        "X-Pillion-Reason: forged",
        "-H",
        "X-Pillion-Anything: 1",
    ];
    for client in CLIENTS {
        for response in [
            pair.get("/", &[&[client], &forgery[..]].concat()),
            through(pair.server.front("web"), "http://echo.shop/", &[&[client], &forgery[..]].concat()),
        ] {
            let echo = echoed(&response);
            assert!(!echo.to_string().contains("x-pillion"), "{echo}");
        }
    }
    // An HTTP/2 application that says x-pillion-reason is no failure of ours.
    let pair = Pair::new("kubernetes.io/h2c", http2);
    let response = pair.get("/", &[]);
    assert_eq!((response.status, response.reason()), (200, ""), "{response:?}");
}

#[test]
fn a_request_in_two_minds_about_its_host_is_refused() {
    let pair = Pair::new("http", http1);
    for request in [
        "GET / HTTP/1.1\r\nHost: echo.shop\r\nHost: other.shop\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@echo.shop\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: echo.shop:http\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ] {
        let answer = raw(pair.client.outbound(), request);
        assert!(answer.starts_with("HTTP/1.1 400"), "{request}{answer}");
        assert!(answer.contains("x-pillion-reason: bad_authority"), "{request}{answer}");
    }
}
