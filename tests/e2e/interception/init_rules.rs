//! Which connections the rules redirect: the same for every backend.

use serde_json::Value;

use super::{BACKENDS, Scene, assert_arrivals, dial};
use crate::support::{APPLICATION, SIDECAR};

const OUT4: &str = "127.0.0.1:15001";
const OUT6: &str = "[::1]:15001";
const IN: &str = "[::]:15006";

#[test]
fn calls_go_to_the_outbound_port_but_the_sidecars_own_and_those_that_stay_on_loopback() {
    let scene = Scene::start();
    let (pod4, pod6) = (scene.pod.v4.unwrap(), scene.pod.v6.unwrap());
    let (other4, other6) = (scene.other.v4.unwrap(), scene.other.v6.unwrap());
    for backend in BACKENDS {
        scene.init(&format!("--backend {backend}"));
        let (server4, server6) = (format!("tcp:{other4}:8080"), format!("tcp:[{other6}]:8080"));
        assert_arrivals(
            backend,
            &scene.pod,
            APPLICATION,
            &[
                // Anybody, and a Service's virtual address, own or not.
                ("tcp:192.0.2.1:80", OUT4, "192.0.2.1:80"),
                ("tcp:240.240.0.7:80", OUT4, "240.240.0.7:80"),
                ("tcp:[2001:db8::1]:80", OUT6, "[2001:db8::1]:80"),
                ("tcp:[fdf0:7069:6c6c::7]:80", OUT6, "[fdf0:7069:6c6c::7]:80"),
                (&server4, OUT4, &format!("{other4}:8080")),
                (&server6, OUT6, &format!("[{other6}]:8080")),
                // Itself.
                ("tcp:127.0.0.1:8080", "[::]:8080", ""),
                ("tcp:[::1]:8080", "[::]:8080", ""),
                (&format!("tcp:{pod4}:8080"), "[::]:8080", ""),
                (&format!("tcp:[{pod6}]:8080"), "[::]:8080", ""),
                ("tcp:127.77.0.5:7000", "127.77.0.5:7000", ""),
                // DNS is left alone.
                (&format!("tcp:{other4}:53"), "[::]:53", ""),
                (&format!("udp:{other6}:53"), "[::]:53", ""),
            ],
        );
        // The sidecar, known by its user; any other program of its, by its mark.
        let direct =
            [(&*server4, "[::]:8080", ""), (&server6, "[::]:8080", ""), ("tcp:127.0.0.1:8080", "[::]:8080", "")];
        assert_arrivals(backend, &scene.pod, SIDECAR, &direct);
        let marked = [(&*format!("{server4}#1337"), "[::]:8080", ""), (&format!("{server6}#1337"), "[::]:8080", "")];
        assert_arrivals(backend, &scene.pod, APPLICATION, &marked);
    }
}

#[test]
fn callers_from_outside_reach_the_inbound_port_and_directly_only_mesh_and_health() {
    let scene = Scene::start();
    let (pod4, pod6) = (scene.pod.v4.unwrap(), scene.pod.v6.unwrap());
    for backend in BACKENDS {
        scene.init(&format!("--backend {backend} --exclude-inbound-ports 22,9000-9010"));
        for pod in [pod4.to_string(), format!("[{pod6}]")] {
            assert_arrivals(
                backend,
                &scene.other,
                APPLICATION,
                &[
                    (&format!("tcp:{pod}:8080"), IN, &format!("{pod}:8080")),
                    // Nothing listens there, or only on loopback; that is the sidecar's to find out.
                    (&format!("tcp:{pod}:81"), IN, &format!("{pod}:81")),
                    (&format!("tcp:{pod}:53"), IN, &format!("{pod}:53")),
                    // The sidecar's other ports too: it knows them as its own and refuses.
                    (&format!("tcp:{pod}:15001"), IN, &format!("{pod}:15001")),
                    (&format!("tcp:{pod}:15006"), IN, &format!("{pod}:15006")),
                    (&format!("tcp:{pod}:15053"), IN, &format!("{pod}:15053")),
                    (&format!("tcp:{pod}:15000"), IN, &format!("{pod}:15000")),
                    (&format!("tcp:{pod}:15008"), "[::]:15008", ""),
                    (&format!("tcp:{pod}:15021"), "[::]:15021", ""),
                    (&format!("tcp:{pod}:9005"), "[::]:9005", ""),
                ],
            );
        }
    }
}

#[test]
fn what_is_excluded_is_direct() {
    let scene = Scene::start();
    let (other4, other6) = (scene.other.v4.unwrap(), scene.other.v6.unwrap());
    let (server4, server6) = (&format!("tcp:{other4}:8080"), &format!("tcp:[{other6}]:8080"));
    let (database4, database6) = (&format!("tcp:{other4}:5432"), &format!("tcp:[{other6}]:5432"));
    let calls = |user, expected: &[(&str, &str, &str)], context: &str| {
        assert_arrivals(context, &scene.pod, user, expected);
    };
    let all_direct = [(&**server4, "[::]:8080", ""), (&**server6, "[::]:8080", "")];
    let all_redirected = [(&**server4, OUT4, ""), (&**server6, OUT6, "")];
    for backend in BACKENDS {
        let init = |words: &str| {
            scene.init(&format!("--backend {backend} {words}"));
            format!("{backend} {words}")
        };

        let with = init("--exclude-outbound-ports 22,5400-5500");
        calls(APPLICATION, &[(database4, "[::]:5432", ""), (database6, "[::]:5432", "")], &with);
        calls(APPLICATION, &all_redirected, &with);

        let with = init(&format!("--exclude-cidrs {other4}/30,198.51.100.0/24,{other6}"));
        calls(APPLICATION, &all_direct, &with);
        calls(APPLICATION, &[("tcp:192.0.2.1:80", OUT4, "192.0.2.1:80")], &with);

        let with = init("--exclude-uids 7,1000-1999 --exclude-gids 2500");
        calls(APPLICATION, &all_direct, &with);
        calls(2500, &all_direct, &with);
        calls(2000, &all_redirected, &with);

        let with = init("--exclude-interfaces docker0,eth*");
        calls(APPLICATION, &all_direct, &with);
        let pod = &format!("tcp:{}:8080", scene.pod.v4.unwrap());
        assert_arrivals(&with, &scene.other, APPLICATION, &[(pod, "[::]:8080", "")]);

        // Another user of the sidecar, and its group.
        let with = init("--uid 2000 --gid 2600 --mark 77");
        calls(2000, &all_direct, &with);
        calls(2600, &all_direct, &with);
        calls(SIDECAR, &all_redirected, &with);
        calls(APPLICATION, &[(&format!("{server4}#77"), "[::]:8080", "")], &with);
    }
}

#[test]
fn included_destinations_are_redirected_though_they_are_loopback_or_excluded() {
    let scene = Scene::start();
    let other4 = scene.other.v4.unwrap();
    for backend in BACKENDS {
        let with = format!("--backend {backend} --exclude-cidrs 0.0.0.0/0,::/0 --include-cidrs 127.77.0.0/16");
        let said = scene.init(&format!("{with} --verify"));
        assert!(said.contains("verified: 127.77.0.1:80 arrives at port 15001"), "{said}");
        assert_arrivals(
            backend,
            &scene.pod,
            APPLICATION,
            &[
                ("tcp:127.77.0.5:7000", OUT4, "127.77.0.5:7000"),
                ("tcp:127.0.0.1:8080", "[::]:8080", ""),
                (&format!("tcp:{other4}:8080"), "[::]:8080", ""),
            ],
        );
        assert_arrivals(backend, &scene.pod, SIDECAR, &[("tcp:127.77.0.5:7000", "127.77.0.5:7000", "")]);
    }
}

#[test]
fn captured_dns_goes_to_the_dns_port_whatever_its_address_but_the_sidecars_own() {
    let scene = Scene::start();
    let (other4, other6) = (scene.other.v4.unwrap(), scene.other.v6.unwrap());
    for backend in BACKENDS {
        scene.init(&format!("--backend {backend} --capture-dns --exclude-uids 1500"));
        let (upstream4, upstream6) = (&format!("udp:{other4}:53"), &format!("udp:[{other6}]:53"));
        assert_arrivals(
            backend,
            &scene.pod,
            APPLICATION,
            &[
                (upstream4, "127.0.0.1:15053", ""),
                (upstream6, "[::1]:15053", ""),
                ("udp:127.0.0.53:53", "127.0.0.1:15053", ""),
                ("udp:[::1]:53", "[::1]:15053", ""),
                ("tcp:127.0.0.53:53", "127.0.0.1:15053", "127.0.0.53:53"),
                ("tcp:[::1]:53", "[::1]:15053", "[::1]:53"),
                ("tcp:192.0.2.1:53", "127.0.0.1:15053", "192.0.2.1:53"),
            ],
        );
        for user in [SIDECAR, 1500] {
            let tcp = &format!("tcp:{other4}:53");
            let direct = [(&**upstream4, "[::]:53", ""), (&**upstream6, "[::]:53", ""), (tcp, "[::]:53", "")];
            assert_arrivals(backend, &scene.pod, user, &direct);
        }
        // The application's query is still tracked when the sidecar sends its own from the same port.
        let pod = scene.pod.v4.unwrap();
        let from_same_port = &format!("{upstream4}@{pod}:5353");
        assert_arrivals(backend, &scene.pod, APPLICATION, &[(from_same_port, "127.0.0.1:15053", "")]);
        assert_arrivals(backend, &scene.pod, SIDECAR, &[(from_same_port, "[::]:53", "")]);
    }
}

#[test]
fn tproxy_keeps_the_callers_address_on_both_sides_of_the_sidecar() {
    let scene = Scene::with_inbound("transparent");
    let (pod4, pod6) = (scene.pod.v4.unwrap(), scene.pod.v6.unwrap());
    let (other4, other6) = (scene.other.v4.unwrap(), scene.other.v6.unwrap());
    for backend in BACKENDS {
        scene.init(&format!("--backend {backend} --mode tproxy --exclude-inbound-ports 9005"));
        for (pod, other) in [(pod4.to_string(), other4.to_string()), (format!("[{pod6}]"), format!("[{other6}]"))] {
            // From outside to the sidecar: both addresses are as they were.
            let answers = dial(
                &scene.other,
                APPLICATION,
                &[
                    &format!("tcp:{pod}:8080@{other}:4001"),
                    &format!("tcp:{pod}:81"),
                    &format!("tcp:{pod}:15006"),
                    &format!("tcp:{pod}:15008"),
                    &format!("tcp:{pod}:9005"),
                ],
            );
            let at = |number: usize| answers[number]["at"].as_str().unwrap_or_default();
            assert_eq!(
                [at(0), at(1), at(2), at(3), at(4)],
                [IN, IN, IN, "[::]:15008", "[::]:9005"],
                "{backend}: {answers:?}"
            );
            assert_eq!(answers[0]["local"], Value::from(format!("{pod}:8080")), "{backend}");
            assert_eq!(answers[0]["peer"], Value::from(format!("{other}:4001")), "{backend}");

            // From the sidecar to the application, in its caller's name: the answer comes back to the sidecar.
            let spoofed = format!("tcp:{pod}:8080@{other}:4002");
            let answers =
                dial(&scene.pod, SIDECAR, &[&spoofed, &format!("tcp:{other}:8080#1337"), "tcp:127.0.0.1:8080"]);
            assert_eq!(answers[0]["at"], "[::]:8080", "{backend}: {answers:?}");
            assert_eq!(answers[0]["peer"], Value::from(format!("{other}:4002")), "{backend}");
            assert_eq!(answers[1]["at"], "[::]:8080", "{backend}: the sidecar's own calls: {answers:?}");
            assert_eq!(answers[2]["at"], "[::]:8080", "{backend}: {answers:?}");

            // Outbound is as in the other mode.
            let out = if pod.starts_with('[') { OUT6 } else { OUT4 };
            let (server, original) = (format!("tcp:{other}:8080"), format!("{other}:8080"));
            assert_arrivals(backend, &scene.pod, APPLICATION, &[(&server, out, &original)]);
        }
    }
}

#[test]
fn without_a_transparent_listener_tproxy_lets_nobody_past() {
    let scene = Scene::with_inbound("tcp");
    for backend in BACKENDS {
        scene.init(&format!("--backend {backend} --mode tproxy"));
        let pod = scene.pod.v4.unwrap();
        let answers = dial(&scene.other, APPLICATION, &[&format!("tcp:{pod}:8080"), &format!("tcp:{pod}:9005")]);
        assert!(answers.iter().all(|answer| answer.get("error").is_some()), "{backend}: {answers:?}");
    }
}
