//! `init` as a command: what it leaves behind, how it fails, what it proves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use super::{BACKENDS, Scene, listen};
use crate::support::{Network, Process, SIDECAR, Stack, output, pillion, run, tool};

const EVERYTHING: &str = "--capture-dns --exclude-inbound-ports 22,9000-9010 --exclude-outbound-ports 5432 \
                          --exclude-cidrs 10.0.0.0/8,fd00::/8 --include-cidrs 127.77.0.0/16 --exclude-interfaces docker0,veth* \
                          --uid 1337,1338 --gid 1339 --exclude-uids 7-9 --exclude-gids 11";

/// Rules of somebody else in every table, which are to stay as they are.
const FOREIGN: &str = "nft add table inet other; nft add chain inet other c '{ type filter hook input priority 0; }'; \
    nft add rule inet other c tcp dport 9 drop; ip rule add fwmark 7 lookup 7; \
    for family in ip ip6; do for kind in nft legacy; do for table in raw mangle nat; do \
      ${family}tables-$kind -t $table -A OUTPUT -p tcp --dport 9 -j ACCEPT; \
      ${family}tables-$kind -t $table -A PREROUTING -p tcp --dport 9 -j ACCEPT; \
      ${family}tables-$kind -t $table -N pillionaire; \
      ${family}tables-$kind -t $table -A OUTPUT -p tcp --dport 10 -j pillionaire; \
    done; done; done";

#[test]
fn twice_is_once_and_undo_leaves_everything_as_it_was() {
    let scene = Scene::start();
    run(scene.pod.command("sh").args(["-e", "-c", FOREIGN]));
    let before = scene.rules();
    for backend in BACKENDS {
        for words in ["", EVERYTHING, "--mode tproxy"] {
            let words = format!("--backend {backend} {words}");
            scene.init(&words);
            let once = scene.rules();
            assert_ne!(once, before, "{words}");
            scene.init(&words);
            assert_eq!(scene.rules(), once, "{words}");
        }
        assert!(scene.init("--undo").contains("removed"));
        assert_eq!(scene.rules(), before, "{backend}");
    }
    assert_eq!(scene.init("--undo").trim(), "nothing to remove");
    assert_eq!(scene.rules(), before);
}

#[test]
fn another_backend_or_mode_leaves_nothing_of_the_one_before() {
    let scene = Scene::start();
    run(scene.pod.command("sh").args(["-e", "-c", FOREIGN]));
    scene.init("");
    let alone = scene.rules();
    for backend in BACKENDS {
        scene.init(&format!("--backend {backend} --mode tproxy --capture-dns"));
    }
    scene.init("--backend nft");
    assert_eq!(scene.rules(), alone);
}

#[test]
fn of_two_runs_at_once_the_later_one_s_rules_are_there_and_nothing_else() {
    let scene = Scene::start();
    let alone = || {
        BACKENDS.map(|backend| {
            scene.init(&format!("--backend {backend} --mode tproxy"));
            scene.rules()
        })
    };
    alone(); // From now on the kernel's own empty chains are there.
    let alone = alone();
    for (one, other) in [(0, 1), (0, 2), (2, 2), (1, 2), (0, 0)] {
        let start = |backend: &str| {
            let mut command = pillion();
            command.args(["proxy", "init", "--without-listener", "--mode", "tproxy", "--backend", backend]);
            Process::spawn("init", &mut scene.pod.wrap(&command))
        };
        // The route is made anew, which two can do wrong as well.
        scene.init("--undo");
        let mut both = [start(BACKENDS[one]), start(BACKENDS[other])];
        for run in &mut both {
            assert!(run.wait().success(), "{}", run.log());
        }
        let rules = scene.rules();
        assert!([&alone[one], &alone[other]].contains(&&rules), "{} and {}: {rules}", BACKENDS[one], BACKENDS[other]);
    }
}

#[test]
fn a_dry_run_changes_nothing_and_needs_no_root() {
    let scene = Scene::start();
    let before = scene.rules();
    let mut commands: Vec<String> = BACKENDS.iter().map(|backend| format!("--backend {backend}")).collect();
    commands.extend(["--mode tproxy --capture-dns".to_owned(), "--undo".to_owned()]);
    for words in commands {
        let mut command = pillion();
        command.args(["proxy", "init", "--dry-run"]).args(words.split(' '));
        let said = run(&mut scene.pod.wrap_as(1000, &[], &command));
        assert!(said.contains("pillion"), "{said}");
        assert_eq!(scene.rules(), before, "{words}");
    }
}

#[test]
fn what_a_dry_run_prints_is_what_a_shell_can_run() {
    let scene = Scene::start();
    for backend in BACKENDS {
        let words = format!("--backend {backend} {EVERYTHING} --mode tproxy");
        // iptables' own chains stay once they are made.
        scene.init(&words);
        scene.init("--undo");
        let script = scene.init(&format!("{words} --dry-run"));
        run(scene.pod.command("sh").args(["-e", "-c", &script]));
        let by_shell = scene.rules();
        scene.init("--undo");
        scene.init(&words);
        assert_eq!(scene.rules(), by_shell, "{backend}");
        scene.init("--undo");
    }
}

#[test]
fn no_rule_is_made_before_the_sidecar_listens() {
    let network = Network::start(Stack::Dual);
    let pod = network.host("pod");
    let failed = said(&pod.init(&[]));
    assert!(failed.starts_with("1 pillion-proxy init: no_listener: nothing listens on 127.0.0.1:15001"), "{failed}");
    let _half = listen(&pod, SIDECAR, &["tcp:127.0.0.1:15001"]);
    let failed = said(&pod.init(&["--wait", "50ms"]));
    assert!(failed.contains("no_listener: nothing listens on [::1]:15001 (waited 50ms"), "{failed}");
    assert_eq!(run(pod.command("nft").args(["list", "ruleset"])), "");

    // It waits as long as it may.
    let mut waiting = pillion();
    waiting.args(["proxy", "init", "--wait", "30s"]);
    let mut waiting = pod.wrap(&waiting).spawn().unwrap();
    let _other_half = listen(&pod, SIDECAR, &["tcp:[::1]:15001"]);
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn verification_names_what_is_wrong() {
    let network = Network::start(Stack::Dual);
    let pod = network.host("pod");
    let failed = said(&pod.init(&["--verify-only"]));
    let expected = "1 pillion-proxy init: not_redirected: 192.0.2.1:80 was dialled, and should have arrived at port 15001 of \
                    this namespace, but ";
    assert!(failed.starts_with(expected), "{failed}");

    // On a listener of its own, and from a user who is not exempt.
    for words in
        ["", "--uid 0", "--exclude-uids 0-100 --exclude-gids 0", "--exclude-outbound-ports 80-90 --capture-dns"]
    {
        let words: Vec<&str> = ["--without-listener", "--verify"].into_iter().chain(words.split_whitespace()).collect();
        let proved = said(&pod.init(&words));
        assert!(proved.starts_with("0 "), "{words:?}: {proved}");
        for arrived in
            ["verified: 192.0.2.1:", "verified: [2001:db8::1]:", "(nft) lead inbound connections to port 15006"]
        {
            assert!(proved.contains(arrived), "{words:?}: {proved}");
        }
    }
    // On the sidecar's listener.
    let _sidecar = listen(&pod, SIDECAR, &["tcp:127.0.0.1:15001", "tcp:[::1]:15001"]);
    let proved = said(&pod.init(&["--verify"]));
    assert!(proved.contains("192.0.2.1:80 arrives at port 15001: the listener there has it"), "{proved}");

    let failed = said(&pod.init(&["--verify-only", "--inbound-port", "16006"]));
    assert!(failed.starts_with("1 pillion-proxy init: inbound_missing: "), "{failed}");
    let failed = said(&pod.init(&["--verify-only", "--outbound-port", "16001"]));
    assert!(failed.contains("not_redirected: 192.0.2.1:80"), "{failed}");
    pod.ip_command("link set eth0 down");
    let failed = said(&pod.init(&["--verify-only"]));
    assert!(failed.starts_with("1 pillion-proxy init: no_route: "), "{failed}");
}

#[test]
fn ipv4_alone_and_ipv6_alone_are_enough() {
    for (stack, address, other) in
        [(Stack::V4, "192.0.2.1:80", "2001:db8"), (Stack::V6, "[2001:db8::1]:80", "192.0.2.1:80")]
    {
        let network = Network::start(stack);
        let pod = network.host("pod");
        for backend in BACKENDS {
            let proved = said(&pod.init(&["--without-listener", "--verify", "--backend", backend]));
            assert!(
                proved.contains(&format!("verified: {address} arrives at port 15001")),
                "{stack:?} {backend}: {proved}"
            );
            assert!(!proved.contains(&format!("{other} arrives")), "{stack:?} {backend}: {proved}");
        }
    }
}

#[test]
fn mistakes_of_the_caller_are_named() {
    let network = Network::start(Stack::V4);
    let pod = network.host("pod");
    let mut command = pillion();
    command.args(["proxy", "init", "--without-listener"]);
    let failed = said(&output(&mut pod.wrap_as(1000, &[], &command)));
    assert!(failed.starts_with("1 pillion-proxy init: no_permission: "), "{failed}");

    let wrong = pod.init(&["--exclude-cidrs", "10.0.0.0/33", "--without-listener"]);
    assert!(said(&wrong).starts_with("2 "), "{}", said(&wrong));
    // The kernel's own words come through: this group cannot be.
    let failed = said(&pod.init(&["--without-listener", "--gid", "4294967295", "--backend", "iptables-nft"]));
    assert!(failed.contains("no_backend: ") && failed.contains("iptables-nft-restore"), "{failed}");
}

#[test]
fn rules_of_an_earlier_run_stay_when_new_ones_cannot_be_had() {
    let scene = Scene::start();
    for backend in BACKENDS {
        scene.init(&format!("--backend {backend} --mode tproxy"));
        let before = scene.rules();
        let failed = said(&scene.pod.init(&["--gid", "4294967295", "--backend", "iptables-nft", "--mode", "tproxy"]));
        assert!(failed.contains("no_backend: "), "{failed}");
        assert_eq!(scene.rules(), before, "{backend}");
    }
}

#[test]
fn a_user_namespace_of_ones_own_needs_no_root() {
    // The program under test may lie in root's own folders: another user has to have a copy.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("pillion");
    fs::copy(pillion().get_program(), &copy).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = r#"
        ip link set lo up
        ip link add eth0 type veth peer name switch && ip link set switch up && ip link set eth0 up
        ip addr add 10.77.0.2/24 dev eth0 && ip route add default via 10.77.0.1
        "$1" proxy init --without-listener --uid 0 --exclude-uids 1337 --verify 2>&1 || echo "failed: $?"
        "$1" proxy init --without-listener --verify && "$1" proxy init --undo && nft list ruleset"#;
    let mut command = Command::new(tool("setpriv", "util-linux"));
    command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "unshare", "-Urn", "sh", "-c", script, "sh"]);
    let said = run(command.arg(&copy));
    // Root of the namespace is the only user there: exempt, it cannot dial as another one.
    assert!(said.contains("not_redirected: 192.0.2.1:80") && said.contains("another one cannot be had"), "{said}");
    assert!(said.contains("verified: 192.0.2.1:80 arrives at port 15001"), "{said}");
    assert!(said.ends_with("removed\n"), "{said}");
}

/// Exit status and everything it wrote.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{} {}{}", output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
