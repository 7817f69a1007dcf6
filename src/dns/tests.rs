//! Over real sockets: a client, `serve`, and nameservers that the test makes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;
use crate::slot::Slot;
use crate::snapshot::{Demand, Lookup, Outbound};

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(20);
const LOCALHOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a nameserver of a test says: any number of messages, for the one that it got and its transport.
type Script = fn(&[u8], &'static str) -> Vec<Vec<u8>>;

/// A message and who sent it.
type Asked = (Vec<u8>, SocketAddr);

/// A nameserver on UDP and TCP of one port, until it is dropped.
struct Nameserver {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Nameserver {
    async fn start(script: Script) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind(LOCALHOST).await.unwrap();
            // The same port may be taken for the other protocol.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut buffer = vec![0; 65535];
            loop {
                let Ok((length, client)) = udp.recv_from(&mut buffer).await else { continue };
                seen.lock().push((buffer[..length].to_vec(), client));
                for answer in script(&buffer[..length], "udp") {
                    udp.send_to(&answer, client).await.unwrap();
                }
            }
        });
        let seen = Arc::clone(&asked);
        tasks.spawn(async move {
            loop {
                let (mut stream, client) = tcp.accept().await.unwrap();
                let Some(query) = read_framed(&mut stream).await else { continue };
                seen.lock().push((query.clone(), client));
                for answer in script(&query, "tcp") {
                    stream.write_all(&forward::framed(&answer).unwrap()).await.unwrap();
                }
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

/// A name with two addresses and a TTL of an hour, whatever the name; with a byte that nobody but us would send.
fn good(query: &[u8], _transport: &'static str) -> Vec<Vec<u8>> {
    let mut answer = Message::from_vec(query).unwrap().into_response();
    let name = answer.queries[0].name().clone();
    for last in [1, 2] {
        answer.add_answer(Record::from_rdata(name.clone(), 3600, RData::A(A::new(198, 51, 100, last))));
    }
    let mut bytes = answer.to_vec().unwrap();
    bytes[3] |= 0b0111_0000; // RA, Z, AD
    vec![bytes]
}

fn coded(query: &[u8], code: ResponseCode) -> Vec<Vec<u8>> {
    let mut answer = Message::from_vec(query).unwrap().into_response();
    answer.metadata.response_code = code;
    vec![answer.to_vec().unwrap()]
}

fn silent(_query: &[u8], _transport: &'static str) -> Vec<Vec<u8>> {
    vec![]
}

/// `serve` on loopback addresses, with what the control plane said.
struct Dns {
    udp: SocketAddr,
    tcp: SocketAddr,
    metrics: Arc<Metrics>,
    _demanded: mpsc::Receiver<Demand>,
    _tasks: JoinSet<()>,
}

impl Dns {
    fn start(hosts: &[(&str, Lookup<[IpAddr]>)], servers: &[SocketAddr]) -> Self {
        let hosts: HashMap<_, _> = hosts.iter().map(|(name, lookup)| ((*name).to_owned(), lookup.clone())).collect();
        let outbound = Arc::new(Slot::new(Outbound { hosts, ..Outbound::default() }));
        let (demand, demanded) = mpsc::channel(64);
        let names = Directory::new(outbound, demand);
        let (udp, tcp) =
            (std::net::UdpSocket::bind(LOCALHOST).unwrap(), std::net::TcpListener::bind(LOCALHOST).unwrap());
        let (udp_address, tcp_address) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let (upstream, metrics) = (Upstream::fixed(servers.to_vec()), Arc::new(Metrics::new()));
        let mut tasks = JoinSet::new();
        let served = serve(vec![udp], vec![tcp], names, upstream, Arc::clone(&metrics), std::future::pending());
        tasks.spawn(async move { served.await.unwrap() });
        Self { udp: udp_address, tcp: tcp_address, metrics, _demanded: demanded, _tasks: tasks }
    }

    async fn over_udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind(LOCALHOST).await.unwrap();
        socket.send_to(query, self.udp).await.unwrap();
        let mut buffer = vec![0; 65535];
        let (length, from) = timeout(DEADLINE, socket.recv_from(&mut buffer)).await.expect("an answer").unwrap();
        assert_eq!(from, self.udp);
        buffer.truncate(length);
        buffer
    }

    async fn over_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.tcp).await.unwrap();
        stream.write_all(&forward::framed(query).unwrap()).await.unwrap();
        read_framed(&mut stream).await.expect("an answer")
    }

    /// How often a query ended so.
    fn count(&self, result: &str, transport: &str) -> u64 {
        let prefix = format!(r#"pillion_dns_queries_total{{result="{result}",transport="{transport}"}} "#);
        self.metrics.encode().lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
    }

    /// The same once it is at least `least`: the answer is sent before it is counted.
    async fn counted(&self, result: &str, transport: &str, least: u64) {
        let start = Instant::now();
        while self.count(result, transport) < least {
            assert!(start.elapsed() < DEADLINE, "{result} {transport}:\n{}", self.metrics.encode());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    timeout(DEADLINE, async {
        let length = stream.read_u16().await.ok()?;
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    })
    .await
    .expect("a message, or the end, in time")
}

fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn addresses(answer: &[u8]) -> Vec<String> {
    let answer = Message::from_vec(answer).unwrap();
    answer.answers.iter().filter_map(|record| record.data.ip_addr()).map(|address| address.to_string()).collect()
}

fn code(answer: &[u8]) -> ResponseCode {
    Message::from_vec(answer).unwrap().metadata.response_code
}

fn known(addresses: &[&str]) -> Lookup<[IpAddr]> {
    Lookup::Known(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

/// An address where nobody listens, nor will: tests use another one.
async fn nobody() -> SocketAddr {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 53, 53, 53], 0))).await.unwrap();
    socket.local_addr().unwrap()
}

#[tokio::test]
async fn names_of_the_mesh_are_answered_and_nobody_else_is_asked() {
    let nameserver = Nameserver::start(good).await;
    let mesh = known(&["240.240.0.7", "fdf0:7069:6c6c::7"]);
    let dns = Dns::start(&[("orders.shop", mesh.clone()), ("empty.shop", known(&[]))], &[nameserver.address]);
    for (name, kind, expected) in [
        ("orders.shop.", RecordType::A, &["240.240.0.7"][..]),
        ("Orders.SHOP.", RecordType::AAAA, &["fdf0:7069:6c6c::7"]),
        ("empty.shop.", RecordType::A, &[]),
    ] {
        let query = query(7, name, kind);
        for answer in [dns.over_udp(&query).await, dns.over_tcp(&query).await] {
            assert_eq!(addresses(&answer), expected, "{name} {kind}");
            assert_eq!(code(&answer), ResponseCode::NoError);
            assert_eq!(answer[..2], [0, 7]);
        }
    }
    dns.counted("mesh", "udp", 3).await;
    dns.counted("mesh", "tcp", 3).await;
    assert_eq!(nameserver.asked(), 0);
}

#[tokio::test]
async fn everything_else_passes_through_unchanged() {
    let nameserver = Nameserver::start(good).await;
    let dns = Dns::start(
        &[("orders.shop", known(&["240.240.0.7"])), ("unknown.shop", Lookup::Unknown)],
        &[nameserver.address],
    );
    let mut with_edns = Message::from_vec(&query(9, "www.Example.com.", RecordType::A)).unwrap();
    let mut edns = Edns::new();
    edns.set_max_payload(1400).set_dnssec_ok(true);
    with_edns.set_edns(edns);
    for query in [
        query(9, "www.Example.com.", RecordType::A),
        with_edns.to_vec().unwrap(),
        query(10, "unknown.shop.", RecordType::A),
        query(11, "orders.shop.", RecordType::SRV),
    ] {
        for transport in ["udp", "tcp"] {
            let answer = if transport == "udp" { dns.over_udp(&query).await } else { dns.over_tcp(&query).await };
            let (asked, _) = nameserver.asked.lock().pop().unwrap();
            assert_eq!(asked[2..], query[2..], "the client's own message");
            assert_eq!(answer[..2], query[..2], "the client's own id");
            assert_eq!(answer[2..], good(&query, transport)[0][2..], "the nameserver's own answer");
        }
    }
    dns.counted("forwarded", "udp", 4).await;
    dns.counted("forwarded", "tcp", 4).await;
}

#[tokio::test]
async fn each_try_has_an_id_and_a_port_of_its_own() {
    let nameserver = Nameserver::start(good).await;
    let dns = Dns::start(&[], &[nameserver.address]);
    for _ in 0..8 {
        dns.over_udp(&query(7, "www.example.com.", RecordType::A)).await;
    }
    let asked = nameserver.asked.lock().clone();
    let distinct = |values: Vec<u16>| values.into_iter().collect::<std::collections::HashSet<_>>().len();
    assert!(distinct(asked.iter().map(|(query, _)| u16::from_be_bytes([query[0], query[1]])).collect()) > 4);
    assert!(distinct(asked.iter().map(|(_, client)| client.port()).collect()) > 4);
}

#[tokio::test]
async fn a_control_plane_that_does_not_answer_costs_a_second_and_then_less() {
    let nameserver = Nameserver::start(good).await;
    let dns = Dns::start(&[], &[nameserver.address]);
    for (name, least, most) in [("a.shop.", 1000, 3000), ("b.shop.", 100, 900), ("www.example.com.", 0, 900)] {
        let start = Instant::now();
        let answer = dns.over_udp(&query(7, name, RecordType::A)).await;
        let took = start.elapsed().as_millis();
        assert_eq!(addresses(&answer), ["198.51.100.1", "198.51.100.2"]);
        assert!((least..most).contains(&took), "{name} took {took} ms");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_passed_on_and_asked_for_again_over_tcp() {
    let nameserver = Nameserver::start(|query, transport| match transport {
        "udp" => vec![Message::from_vec(query).unwrap().into_response().truncate().to_vec().unwrap()],
        _ => good(query, transport),
    })
    .await;
    let dns = Dns::start(&[], &[nameserver.address]);
    let query = query(7, "www.example.com.", RecordType::A);
    let answer = Message::from_vec(&dns.over_udp(&query).await).unwrap();
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    assert_eq!(addresses(&dns.over_tcp(&query).await).len(), 2);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let servfail = Nameserver::start(|query, _| coded(query, ResponseCode::ServFail)).await;
    let refused = Nameserver::start(|query, _| coded(query, ResponseCode::Refused)).await;
    let last = Nameserver::start(good).await;
    let servers = [nobody().await, servfail.address, refused.address, last.address];
    let query = query(7, "www.example.com.", RecordType::A);
    for transport in ["udp", "tcp"] {
        let dns = Dns::start(&[], &servers);
        for _ in 0..3 {
            let answer = if transport == "udp" { dns.over_udp(&query).await } else { dns.over_tcp(&query).await };
            assert_eq!(addresses(&answer).len(), 2);
        }
        dns.counted("forwarded", transport, 3).await;
    }
    assert_eq!((servfail.asked(), refused.asked()), (2, 2), "afterwards the one that answered is asked first");
    assert_eq!(last.asked(), 6);
}

#[tokio::test]
async fn a_silent_server_is_passed_over_after_two_seconds() {
    let (first, second) = (Nameserver::start(silent).await, Nameserver::start(good).await);
    let dns = Dns::start(&[], &[first.address, second.address]);
    let start = Instant::now();
    let answer = dns.over_udp(&query(7, "www.example.com.", RecordType::A)).await;
    assert_eq!(addresses(&answer).len(), 2);
    assert!((2000..4000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!((first.asked(), second.asked()), (1, 1));
}

#[tokio::test]
async fn when_all_fail_their_own_word_is_passed_on() {
    let refused = Nameserver::start(|query, _| coded(query, ResponseCode::Refused)).await;
    let query = query(7, "www.example.com.", RecordType::A);
    let dns = Dns::start(&[], &[refused.address]);
    assert_eq!(code(&dns.over_udp(&query).await), ResponseCode::Refused);
    dns.counted("servfail", "udp", 1).await;
    for servers in [vec![], vec![nobody().await]] {
        let (dns, start) = (Dns::start(&[], &servers), Instant::now());
        for answer in [dns.over_udp(&query).await, dns.over_tcp(&query).await] {
            assert_eq!(code(&answer), ResponseCode::ServFail, "{servers:?}");
            assert_eq!(answer[..2], [0, 7]);
        }
        assert!(start.elapsed() < Duration::from_millis(1500), "a closed port is noticed at once");
    }
}

#[tokio::test]
async fn what_is_no_answer_to_the_query_is_ignored() {
    let nameserver = Nameserver::start(|asked, transport| {
        let real = good(asked, transport).remove(0);
        let mut other_id = real.clone();
        other_id[1] ^= 1;
        let mut other_name = real.clone();
        other_name[13] ^= 1;
        vec![asked.to_vec(), other_id, other_name, vec![1], real]
    })
    .await;
    let dns = Dns::start(&[], &[nameserver.address]);
    let query = query(7, "www.example.com.", RecordType::A);
    assert_eq!(dns.over_udp(&query).await[2..], good(&query, "udp")[0][2..]);
}

#[tokio::test]
async fn the_last_answer_is_given_again_when_nobody_answers() {
    let nameserver = Nameserver::start(good).await;
    let dns = Dns::start(&[], &[nameserver.address]);
    let before = query(7, "www.example.com.", RecordType::A);
    assert_eq!(addresses(&dns.over_udp(&before).await).len(), 2);
    dns.counted("forwarded", "udp", 1).await;
    drop(nameserver);
    let after = query(8, "WWW.example.com.", RecordType::A);
    for answer in [dns.over_udp(&after).await, dns.over_tcp(&after).await] {
        assert_eq!(addresses(&answer), ["198.51.100.1", "198.51.100.2"]);
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, 8);
        assert!(answer.answers.iter().all(|record| record.ttl == 30));
    }
    dns.counted("stale", "udp", 1).await;
    dns.counted("stale", "tcp", 1).await;
    let other = query(9, "other.example.com.", RecordType::A);
    assert_eq!(code(&dns.over_udp(&other).await), ResponseCode::ServFail, "never asked for before");
}

#[tokio::test]
async fn malformed_queries_are_told_so_and_counted() {
    let dns = Dns::start(&[], &[]);
    let mut none = query(7, "www.example.com.", RecordType::A);
    none[5] = 0;
    assert_eq!(code(&dns.over_udp(&none).await), ResponseCode::FormErr);
    assert_eq!(code(&dns.over_tcp(&none).await), ResponseCode::FormErr);
    // What has no header gets no answer: over TCP the end, over UDP nothing but the count.
    let mut stream = TcpStream::connect(dns.tcp).await.unwrap();
    stream.write_all(&[0, 2, 1, 2]).await.unwrap();
    assert_eq!(read_framed(&mut stream).await, None);
    let socket = UdpSocket::bind(LOCALHOST).await.unwrap();
    socket.send_to(&[1, 2], dns.udp).await.unwrap();
    dns.counted("malformed", "udp", 2).await;
    dns.counted("malformed", "tcp", 2).await;
    // A length that no query has ends the connection before it is read.
    let mut stream = TcpStream::connect(dns.tcp).await.unwrap();
    stream.write_all(&[0xff, 0xff]).await.unwrap();
    assert_eq!(read_framed(&mut stream).await, None);
}

#[tokio::test]
async fn queries_in_one_connection_do_not_wait_for_each_other() {
    let nameserver = Nameserver::start(silent).await;
    let dns = Dns::start(&[("orders.shop", known(&["240.240.0.7"]))], &[nameserver.address]);
    let mut stream = TcpStream::connect(dns.tcp).await.unwrap();
    let slow = forward::framed(&query(1, "www.example.com.", RecordType::A)).unwrap();
    let fast = forward::framed(&query(2, "orders.shop.", RecordType::A)).unwrap();
    stream.write_all(&[&slow[..], &fast[..5]].concat()).await.unwrap();
    stream.flush().await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(&fast[5..]).await.unwrap();
    // Half closed: what was asked is answered still.
    stream.shutdown().await.unwrap();
    let answers = [read_framed(&mut stream).await.unwrap(), read_framed(&mut stream).await.unwrap()];
    assert_eq!(answers.each_ref().map(|answer| answer[1]), [2, 1]);
    assert_eq!(code(&answers[1]), ResponseCode::ServFail);
    assert_eq!(read_framed(&mut stream).await, None);
}

#[tokio::test]
async fn a_connection_without_a_query_is_closed() {
    let dns = Dns::start(&[], &[]);
    let mut stream = TcpStream::connect(dns.tcp).await.unwrap();
    stream.write_all(&[0]).await.unwrap(); // Half a length does not keep it open.
    let start = Instant::now();
    assert_eq!(read_framed(&mut stream).await, None);
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
}

#[tokio::test]
async fn queries_beyond_the_bound_are_dropped_and_counted() {
    let nameserver = Nameserver::start(silent).await;
    let metrics = Arc::new(Metrics::new());
    let names = Directory::new(Arc::new(Slot::new(Outbound::default())), mpsc::channel(1).0);
    let upstream = Upstream::fixed(vec![nameserver.address]);
    let resolver = Arc::new(Resolver::new(names, upstream, Vec::new(), Arc::clone(&metrics)));
    let socket = UdpSocket::bind(LOCALHOST).await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(udp::serve(socket, resolver, Arc::new(Semaphore::new(2))));
    let client = UdpSocket::bind(LOCALHOST).await.unwrap();
    for id in 0..5 {
        client.send_to(&query(id, "www.example.com.", RecordType::A), address).await.unwrap();
    }
    let start = Instant::now();
    while !metrics.encode().contains(r#"dns_queries_total{result="overload",transport="udp"} 3"#) {
        assert!(start.elapsed() < DEADLINE, "{}", metrics.encode());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What was taken is answered nevertheless.
    for _ in 0..2 {
        let mut buffer = [0; 512];
        let length = timeout(DEADLINE, client.recv(&mut buffer)).await.expect("an answer").unwrap();
        assert_eq!(code(&buffer[..length]), ResponseCode::ServFail);
    }
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let socket = std::net::UdpSocket::bind(LOCALHOST).unwrap();
    let address = socket.local_addr().unwrap();
    let names = Directory::new(Arc::new(Slot::new(Outbound::default())), mpsc::channel(1).0);
    let stop = async { tokio::time::sleep(Duration::from_millis(10)).await };
    serve(vec![socket], vec![], names, Upstream::fixed(vec![]), Arc::new(Metrics::new()), stop).await.unwrap();
    let start = Instant::now();
    // Its tasks end at their next turn, and give the port back.
    while std::net::UdpSocket::bind(address).is_err() {
        assert!(start.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn for_ourselves_an_answer_that_does_not_fit_is_asked_for_over_tcp_and_failures_say_what_they_are() {
    fn cut(query: &[u8], transport: &'static str) -> Vec<Vec<u8>> {
        let mut answers = good(query, transport);
        if transport == "udp" {
            answers[0][2] |= 0b10; // TC
        }
        answers
    }
    fn absent(query: &[u8], _transport: &'static str) -> Vec<Vec<u8>> {
        coded(query, ResponseCode::NXDomain)
    }
    fn broken(query: &[u8], _transport: &'static str) -> Vec<Vec<u8>> {
        coded(query, ResponseCode::ServFail)
    }
    let metrics = Arc::new(Metrics::new());
    let addresses =
        || Found::Addresses([1, 2].map(|last| [198, 51, 100, last].into()).into(), Duration::from_secs(3600));
    type Case<'a> = (Script, usize, &'a dyn Fn(&Found) -> bool);
    let cases: [Case<'_>; 4] = [
        (good, 1, &|found| *found == addresses()),
        (cut, 2, &|found| *found == addresses()),
        (absent, 1, &|found| matches!(found, Found::Nothing(why) if why.contains("NXDOMAIN"))),
        (broken, 2, &|found| matches!(found, Found::Failed(why) if why.contains("SERVFAIL"))),
    ];
    for (script, questions, is_right) in cases {
        let nameserver = Nameserver::start(script).await;
        let lookups = Lookups::new(Upstream::fixed(vec![nameserver.address]), Vec::new(), Arc::clone(&metrics));
        let found = timeout(DEADLINE, lookups.find("api.example.com", message::Family::V4, DEADLINE)).await.unwrap();
        assert!(is_right(&found), "{found:?}");
        assert_eq!(nameserver.asked(), questions);
    }
    let text = metrics.encode();
    for line in ["{result=\"found\"} 2", "{result=\"empty\"} 1", "{result=\"failed\"} 1"] {
        assert!(text.contains(&format!("pillion_name_lookups_total{line}")), "{text}");
    }
}

#[tokio::test]
async fn for_ourselves_the_third_nameserver_is_asked_before_the_first_answer_is_given_up() {
    let [one, two, three] =
        [Nameserver::start(silent).await, Nameserver::start(silent).await, Nameserver::start(good).await];
    let servers = [&one, &two, &three].map(|nameserver| nameserver.address).to_vec();
    let lookups = Lookups::new(Upstream::fixed(servers), Vec::new(), Arc::new(Metrics::new()));
    for _ in 0..2 {
        let found = lookups.find("api.example.com", message::Family::V4, Duration::from_secs(4)).await;
        assert!(matches!(&found, Found::Addresses(..)), "{found:?}");
    }
}
