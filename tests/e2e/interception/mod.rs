//! Interception: rules that `pillion proxy init` programs, in network namespaces that these tests make.

mod init_command;
mod init_earlier;
mod init_rules;
mod pods;

use serde_json::Value;

use super::support::{Host, Network, Process, SIDECAR, Stack, in_workspace, python, run};

/// All that can program rules.
const BACKENDS: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];

/// A pod with witnesses where a sidecar and applications would listen, and another host that has servers.
struct Scene {
    pod: Host,
    other: Host,
    /// Keeps the switch.
    _network: Network,
    _witnesses: [Process; 3],
}

impl Scene {
    fn start() -> Self {
        Self::with_inbound("tcp")
    }

    /// `transparent` or `tcp`: how the inbound port listens.
    fn with_inbound(kind: &str) -> Self {
        let network = Network::start(Stack::Dual);
        let (pod, other) = (network.host("pod"), network.host("other"));
        // What it sends to its callers has to leave, marked or not.
        let inbound = format!("{kind}:[::]:15006#1337");
        let sidecar = ["tcp:127.0.0.1:15001", "tcp:[::1]:15001", "tcp:127.0.0.1:15053", "tcp:[::1]:15053"];
        let sidecar = sidecar.into_iter().chain(["udp:127.0.0.1:15053", "udp:[::1]:15053", "tcp:[::]:15008", &inbound]);
        let application = ["tcp:[::]:8080", "tcp:[::]:9005", "tcp:[::]:15021", "tcp:127.77.0.5:7000"];
        let servers = ["tcp:[::]:8080", "tcp:[::]:5432", "tcp:[::]:53", "udp:[::]:53"];
        let witnesses = [
            listen(&pod, SIDECAR, &sidecar.collect::<Vec<_>>()),
            listen(&pod, 1000, &application),
            listen(&other, 1000, &servers),
        ];
        Self { pod, other, _network: network, _witnesses: witnesses }
    }

    /// Programs the rules with these words of the command line.
    fn init(&self, words: &str) -> String {
        let done = self.pod.init(&words.split_whitespace().collect::<Vec<_>>());
        assert!(done.status.success(), "init {words}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Everything that `init` may have changed, as the kernel tells it. Counters and dates left out.
    fn rules(&self) -> String {
        // What the kernel adds by itself comes and goes.
        let shell = "nft -s list ruleset
            for family in ip ip6; do ${family}tables-legacy-save | sed -e '/^#/d' -e 's/ \\[[0-9:]*\\]$//'; done
            for family in -4 -6; do ip $family rule; ip $family route show table all | grep -v 'proto kernel'; done";
        run(self.pod.command("sh").args(["-c", shell]))
    }
}

/// Starts `witness.py listen` as a user who may have transparent sockets.
fn listen(host: &Host, user: u32, specs: &[&str]) -> Process {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/witness.py")).arg("listen").args(specs);
    let mut process = Process::spawn("witness", &mut host.wrap_as(user, &["net_admin", "net_bind_service"], &command));
    process.ready();
    process
}

/// What `witness.py dial` got from each of these as a user.
fn dial(host: &Host, user: u32, specs: &[&str]) -> Vec<Value> {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/witness.py")).arg("dial").args(specs);
    let said = run(&mut host.wrap_as(user, &["net_admin"], &command));
    serde_json::from_str(&said).expect("a list")
}

/// Dials each and compares where it arrived, and as what: `("tcp:192.0.2.1:80", "127.0.0.1:15001", "192.0.2.1:80")`.
fn assert_arrivals(context: &str, host: &Host, user: u32, expected: &[(&str, &str, &str)]) {
    let specs: Vec<&str> = expected.iter().map(|(spec, _, _)| *spec).collect();
    for ((spec, at, original), answer) in expected.iter().zip(dial(host, user, &specs)) {
        assert_eq!(answer["at"], *at, "{context}: where {spec} of user {user} arrived: {answer}");
        if !original.is_empty() {
            assert_eq!(answer["original"], *original, "{context}: as what {spec} of user {user} arrived: {answer}");
        }
    }
}
