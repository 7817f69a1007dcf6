//! The dashboard: who may look, and what a real browser shows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{mesh, shop};
use crate::support::{Curl, Mesh, Workload, curl, eventually, nginx, python_json, tool};

const SOON: Duration = Duration::from_secs(60);

/// A mesh with a dashboard on a free port, its address and its token.
fn open(arguments: &[&str]) -> (Mesh, String, String) {
    let mesh = mesh(&[&["--dashboard", "127.0.0.1:0"], arguments].concat());
    let (address, token) = url(&mesh);
    (mesh, address, token)
}

fn url(mesh: &Mesh) -> (String, String) {
    let ready = mesh.with_control_plane(|process| process.ready());
    let url = ready["dashboard"].as_str().expect("a URL").to_owned();
    let (address, token) = url.split_once("/#token=").expect("a token");
    (address.to_owned(), token.to_owned())
}

fn log_in(address: &str, token: &str, more: &[&str]) -> Curl {
    let (url, body) = (format!("{address}/api/v1/login"), json!({ "token": token }).to_string());
    curl(&[&["-X", "POST", "-H", "Content-Type: application/json", "-d", &body, &url], more].concat())
}

#[test]
fn only_the_token_opens_it() {
    let (_mesh, address, token) = open(&[]);
    let graph = format!("{address}/api/v1/graph");
    assert_eq!(curl(&[&graph]).status, 401);
    assert_eq!(curl(&[&graph, "-H", "Authorization: Bearer wrong"]).status, 401);
    assert_eq!(curl(&[&graph, "-H", &format!("Authorization: Bearer {token}")]).status, 200);
    let answer = log_in(&address, &token, &[]);
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let session = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(curl(&[&graph, "-H", &session]).status, 200);
    assert_eq!(curl(&["-X", "POST", &graph, "-H", &session]).status, 405, "read only");
    let out = format!("{address}/api/v1/logout");
    assert_eq!(curl(&["-X", "POST", &out, "-H", &session]).status, 200);
    assert_eq!(curl(&[&graph, "-H", &session]).status, 401, "logged out");

    let tries: Vec<u16> = (0..12).map(|_| log_in(&address, "wrong", &[]).status).collect();
    assert!(tries[0] == 401 && tries[11] == 429, "{tries:?}");
    assert_eq!(log_in(&address, &token, &[]).status, 429, "nobody can go on guessing");
}

#[test]
fn other_names_and_other_origins_are_refused() {
    let (_mesh, address, token) = open(&[]);
    let bearer = format!("Authorization: Bearer {token}");
    let port = address.rsplit(':').next().unwrap();
    let status = |header: &str| curl(&[&format!("{address}/api/v1/graph"), "-H", &bearer, "-H", header]).status;
    assert_eq!(status("Host: rebound.example"), 403);
    assert_eq!(status(&format!("Host: rebound.example:{port}")), 403);
    assert_eq!(status("Host: 127.0.0.1:1"), 403);
    assert_eq!(status(&format!("Host: localhost:{port}")), 200);
    assert_eq!(status("Origin: http://evil.example"), 403);
    assert_eq!(status("Origin: null"), 403);
    assert_eq!(status(&format!("Origin: {address}")), 200);
    assert_eq!(status("Sec-Fetch-Site: cross-site"), 403);
    assert_eq!(log_in(&address, &token, &["-H", "Origin: http://evil.example"]).status, 403);
    let page = curl(&[&format!("{address}/")]);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.text().contains("<script>") && !page.text().contains("style="), "nothing inline");
}

#[test]
fn others_need_a_token_of_their_own_making() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = crate::support::pillion();
        command.arg("control-plane").arg("--config").arg(folder.path()).arg("--state").arg(folder.path().join("state"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(arguments);
        let output = crate::support::output(&mut command);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (good, log) = run(&["--dashboard", "0.0.0.0:0"]);
    assert!(!good && log.contains("--dashboard-token-file"), "{log}");
    let file = folder.path().join("token");
    std::fs::write(&file, "a token that is long enough\n").unwrap();
    let (good, log) = run(&["--dashboard", "127.0.0.1:0", "--dashboard-token-file", file.to_str().unwrap()]);
    assert!(!good && log.contains("chmod 600"), "{log}");
}

/// Opens the dashboard in Chromium; nothing may go wrong there, and nothing may be asked of anybody else.
fn browse(address: &str, token: &str, width: u32, dark: bool, steps: &[Value]) -> Vec<Value> {
    let chromium = tool("chromium", "chromium");
    let height = if width < 600 { 844 } else { 880 };
    let said = python_json(
        "browse.py",
        &json!({
            "chromium": chromium, "url": format!("{address}/#token={token}"), "width": width, "height": height,
            "dark": dark, "steps": steps,
        }),
    );
    assert_eq!(said["errors"], json!([]), "the console is quiet");
    let requests: Vec<&str> = said["requests"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(requests.len() > 10 && requests.iter().all(|url| url.starts_with(address)), "{requests:?}");
    said["values"].as_array().unwrap().clone()
}

fn wait(expression: &str) -> Value {
    json!({ "wait": expression })
}

/// The text of the page.
const TEXT: &str = "document.body.innerText";

/// Where pictures for the documentation go, if anywhere: the variable `DASHBOARD_PICTURES`.
fn picture(name: &str) -> Vec<Value> {
    let folder = std::env::var_os("DASHBOARD_PICTURES").map(PathBuf::from);
    folder.map(|folder: PathBuf| json!({ "shot": Path::new(&folder).join(name) })).into_iter().collect()
}

/// Requests that go on until it is dropped.
struct Traffic {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// To these hosts and paths, one after the other, through the proxy at this address.
    fn begin(proxy: SocketAddr, targets: &'static [(&'static str, &'static str)]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            for (host, path) in targets.iter().cycle() {
                curl(&[&format!("http://{proxy}{path}"), "-H", &format!("Host: {host}")]);
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // As often as people look, and not so often that nothing else runs.
                thread::park_timeout(Duration::from_millis(50));
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("it only asks");
        }
    }
}

/// A shop whose payment has an instance that always fails, behind a breaker, and an object that is refused.
fn troubled(mesh: &Mesh) -> (Traffic, Vec<crate::support::App>, Vec<crate::support::Sidecar>) {
    let (orders, client, app) = shop(mesh);
    let good = nginx(mesh, "    location / { return 200 \"paid\\n\"; }");
    let bad = nginx(mesh, "    location / { return 503 \"no\\n\"; }");
    mesh.service("payment", &[("http", 80, "http")]);
    mesh.write(
        "breaker.yaml",
        "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: payment, namespace: shop }\nspec:\n  \
         targetRefs: [ { kind: Service, name: payment } ]\n  breaker: { consecutiveFailures: 3, openTime: 10m }\n",
    );
    let payments = [("payment-1", &good), ("payment-2", &bad)]
        .map(|(name, app)| mesh.workload(Workload::new(name).port("http", app.address)));
    mesh.write(
        "bad.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: { name: gift, namespace: shop }\nspec: { ports: 80 }\n",
    );
    let traffic = Traffic::begin(
        client.outbound(),
        &[("orders.shop", "/?[1-12]"), ("payment.shop", "/?[1-12]"), ("orders.shop", "/fail")],
    );
    eventually("the breaker is told", SOON, || mesh.admin("/api/v1/graph").contains("\"open\":1").then_some(()));
    let [first, second] = payments;
    (traffic, vec![app, good, bad], vec![orders, client, first, second])
}

#[test]
fn a_browser_shows_graph_breakers_and_refused_configuration() {
    let (mesh, address, token) = open(&[]);
    let _running = troubled(&mesh);
    let mut steps = vec![
        wait("document.querySelectorAll('.edge').length >= 2"),
        wait("document.querySelector('.stage').textContent.match(/1 breaker open.*p99/)"),
        json!({ "read": TEXT }),
        json!({ "read": "location.href" }),
        json!({ "read": "document.querySelector('.stage').textContent" }),
    ];
    steps.extend(picture("trouble-light.png"));
    // By keyboard alone: to the node whose breaker is open.
    let focused = "document.activeElement.dataset.key === 'service/shop/payment'";
    steps.push(json!({ "do": "document.querySelector('[data-key=\"service/shop/payment\"]').focus()" }));
    steps.extend([wait(focused), json!({ "key": "Enter" }), wait("document.querySelectorAll('.chart').length >= 3")]);
    steps.extend([json!({ "read": TEXT })]);
    steps.extend(picture("node-light.png"));
    steps.extend([
        json!({ "do": "location.hash = '#/config'" }),
        wait("document.body.innerText.includes('gift')"),
        json!({ "read": TEXT }),
    ]);
    steps.extend(picture("config-light.png"));
    steps.extend([
        json!({ "do": "location.hash = '#/table'" }),
        wait("document.querySelectorAll('tbody tr').length >= 2"),
    ]);
    let values = browse(&address, &token, 1400, false, &steps);
    let text = |index: usize| values[index].as_str().unwrap_or_default();
    assert!(text(0).contains("4 sidecars connected") && text(0).contains("Service graph"), "{}", text(0));
    assert!(!text(1).contains("token"), "the token does not stay in the address: {}", text(1));
    assert!(text(2).contains("1 breaker open") && text(2).contains("p99"), "{}", text(2));
    assert!(text(3).contains("breaker open") && text(3).contains("payment-2"), "{}", text(3));
    assert!(text(4).contains("Refused") && text(4).contains("bad.yaml"), "{}", text(4));
}

#[test]
fn an_edge_that_went_quiet_stays_for_a_while() {
    let (mesh, address, token) = open(&[]);
    let (_orders, client, _app) = shop(&mesh);
    curl(&[&format!("http://{}/?[1-5]", client.outbound()), "-H", "Host: orders.shop"]);
    let idle = || -> Option<()> {
        let graph: Value = serde_json::from_str(&mesh.admin("/api/v1/graph?window=5")).unwrap();
        let edges = graph["edges"].as_array().unwrap();
        (edges.len() == 1 && edges[0]["idle_seconds"].is_u64() && edges[0]["requests"] == 0).then_some(())
    };
    eventually("nothing for five seconds", SOON, idle);
    let steps = [
        wait("!!document.querySelector('.edge.idle')"),
        json!({ "read": "document.querySelector('.label.idle').textContent" }),
        json!({ "read": "document.querySelector('.sub').textContent" }),
    ];
    let pick = json!({ "do": "document.querySelector('select').value = 10; document.querySelector('select').dispatchEvent(new Event('change'))" });
    let values = browse(
        &address,
        &token,
        1400,
        false,
        &[&[wait("!!document.querySelector('.edge')"), pick], &steps[..]].concat(),
    );
    let text = |index: usize| values[index].as_str().unwrap_or_default();
    assert!(text(0).contains("idle ") && text(0).contains(" s"), "{}", text(0));
    assert!(text(1).contains("1 edge, 1 idle"), "{}", text(1));
}

#[test]
fn a_narrow_dark_screen_works() {
    let (mesh, address, token) = open(&[]);
    let _running = troubled(&mesh);
    let mut steps = vec![wait("document.querySelectorAll('.edge').length >= 2")];
    steps.extend(picture("narrow-dark.png"));
    steps.push(json!({ "read": "document.documentElement.scrollWidth <= innerWidth" }));
    steps.extend([json!({ "do": "location.hash = '#/node/service%2Fshop%2Fpayment'" })]);
    steps.extend([wait("document.querySelectorAll('.chart').length >= 3")]);
    steps.extend(picture("narrow-node-dark.png"));
    steps.push(json!({ "read": "document.documentElement.scrollWidth <= innerWidth" }));
    let values = browse(&address, &token, 390, true, &steps);
    assert_eq!(values, [true, true], "nothing is wider than the screen");
}

#[test]
fn a_wrong_token_is_told_in_words_and_the_tap_shows_requests_as_they_end() {
    let (mesh, address, token) = open(&[]);
    let (_orders, client, _app) = shop(&mesh);
    let _traffic = Traffic::begin(client.outbound(), &[("orders.shop", "/"), ("orders.shop", "/fail?secret=1")]);
    let fill = |name: &str, text: &str| json!({ "do": format!("document.querySelector('.filter [name={name}]').value = '{text}'") });
    let press = "document.querySelector('[data-key=tap]').click()";
    let mut steps = vec![
        wait("document.querySelector('.wrong')?.textContent.includes('this is not the token')"),
        json!({ "do": format!("document.querySelector('input').value = '{token}'") }),
        json!({ "do": "document.querySelector('form').requestSubmit()" }),
        wait("document.querySelectorAll('.node').length >= 2"),
        json!({ "do": "location.hash = '#/tap'" }),
        wait("!!document.querySelector('[data-key=tap]')"),
        fill("status", "loud"),
        json!({ "do": press }),
        wait("document.querySelector('.wrong').textContent.includes('status `loud`')"),
        fill("status", ""),
        fill("to", "shop/orders"),
        json!({ "do": press }),
        wait("document.querySelectorAll('.feed tbody tr').length >= 12"),
        wait("document.querySelector('.head [role=status]').textContent.includes('2 sidecars')"),
        json!({ "read": "document.querySelector('.feed').innerText" }),
    ];
    steps.extend(picture("tap.png"));
    steps.extend([
        json!({ "do": press }),
        wait("document.querySelector('.head [role=status]').textContent.startsWith('Stopped')"),
        fill("status", "5xx"),
        json!({ "do": press }),
        wait("document.querySelectorAll('.feed tbody tr').length >= 3"),
        json!({ "read": "[...document.querySelectorAll('.feed tbody tr')].map((row) => row.cells[6].innerText).join()" }),
    ]);
    let said = python_json(
        "browse.py",
        &json!({
            "chromium": tool("chromium", "chromium"), "url": format!("{address}/#token=wrong"), "steps": steps,
        }),
    );
    let requests = said["requests"].as_array().unwrap();
    assert!(requests.iter().filter_map(Value::as_str).all(|url| url.starts_with(&address)), "{requests:?}");
    let rows = said["values"][0].as_str().unwrap();
    for told in ["caller", "callee", "shop/client", "shop/orders-1", "orders.shop/fail", "500", "mutual"] {
        assert!(rows.contains(told), "{told}: {rows}");
    }
    assert!(!rows.contains("secret") && !rows.contains("undefined"), "{rows}");
    assert!(said["values"][1].as_str().unwrap().split(',').all(|status| status == "500"), "{said}");
}

#[test]
fn a_lost_control_plane_is_told_and_what_was_known_stays() {
    let (mesh, address, token) = open(&[]);
    let _running = shop(&mesh);
    let said = python_json(
        "browse.py",
        &json!({
            "chromium": tool("chromium", "chromium"), "url": format!("{address}/#token={token}"),
            "steps": [
                wait("document.querySelectorAll('.node').length >= 2"),
                json!({ "kill": mesh.with_control_plane(|process| process.pid()) }),
                wait("document.body.classList.contains('stale')"),
                json!({ "read": "document.getElementById('away').innerText" }),
                json!({ "read": "document.querySelectorAll('.node').length" }),
            ],
        }),
    );
    let told = said["values"][0].as_str().unwrap();
    assert!(told.contains("does not answer") && told.contains("old"), "{told}");
    assert_eq!(said["values"][1], 2, "what was known is still there");
}
