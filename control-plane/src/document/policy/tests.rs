use std::time::Duration;

use pillion_wire::health::{HttpProbe, Probe};
use pillion_wire::load_shedding::{Criticality, CriticalityRule, Gradient, LoadShedding, MinRtt, Percent};

use crate::{
    core::policy::{Abort, Algorithm, HashOn, Share, SlowStart, Target, TrafficPolicy, Unit, Value, Zones},
    core::route::RouteKind,
    document::{Object, read},
};

fn policy(spec: &str) -> Result<TrafficPolicy, Vec<String>> {
    let text = format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    );
    match read(&text, 1).outcome {
        Ok(Some(Object::Policy(policy))) => Ok(policy.as_ref().clone()),
        Ok(other) => panic!("{other:?}"),
        Err(errors) => Err(errors.iter().map(|placed| placed.issue.path.to_string()).collect()),
    }
}

#[test]
fn targets_and_sections_are_read() {
    let policy = policy(
        "{targetRefs: [{kind: Service, name: a, sectionName: http}, \
         {group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], timeouts: {connect: 1s500ms}}",
    )
    .unwrap();
    assert_eq!(
        policy.targets,
        [
            Target::Service { name: "a".to_owned(), section: Some("http".to_owned()) },
            Target::Route { kind: RouteKind::Http, name: "r".to_owned() },
        ]
    );
    assert_eq!(policy.policy.timeouts.unwrap().connect, Some(Duration::from_millis(1500)));
}

#[test]
fn load_balancing_is_read_with_its_defaults() {
    let read = |section: &str| {
        let spec = format!("{{targetRefs: [{{kind: Service, name: a}}], loadBalancing: {section}}}");
        policy(&spec).unwrap().policy.load_balancing.unwrap()
    };
    assert_eq!(read("{panicThreshold: 0}").algorithm, Algorithm::RoundRobin);
    assert_eq!(read("{algorithm: leastRequest}").algorithm, Algorithm::LeastRequest { choices: 2 });
    let (decay, default_rtt) = (Duration::from_secs(10), Duration::from_millis(30));
    assert_eq!(read("{algorithm: peakEwma}").algorithm, Algorithm::PeakEwma { decay, default_rtt });
    let hashed =
        read("{algorithm: maglev, hashOn: [{header: X-User}, {cookie: {name: sid, ttl: 1h}}, {sourceAddress: true}]}");
    assert_eq!(hashed.algorithm, Algorithm::Maglev { table: 65_537 });
    let cookie = HashOn::Cookie { name: "sid".to_owned(), ttl: Some(Duration::from_secs(3600)), path: "/".to_owned() };
    assert_eq!(hashed.hash_on, [HashOn::Header("x-user".to_owned()), cookie, HashOn::SourceAddress]);
    let zones = read("{zones: {failover: [west]}, slowStart: {window: 30s, aggression: 1.5}}");
    assert_eq!(zones.zones.unwrap(), Zones { prefer_own: true, failover: vec!["west".to_owned()] });
    let slow = SlowStart { window: Duration::from_secs(30), aggression_percent: 150, minimum_percent: 10 };
    assert_eq!(zones.slow_start, Some(slow));
}

#[test]
fn limits_breaker_and_outlier_detection_have_stated_defaults() {
    let read = policy(
        "{targetRefs: [{kind: Service, name: a}], limits: {requests: 10, perEndpoint: {requests: 4}}, \
         breaker: {failOn: [gateway-error, timeout], statuses: [429], grpcCodes: [UNAVAILABLE, RESOURCE_EXHAUSTED], \
         probes: 3, slowCall: 2s}, outlierDetection: {successRate: {}}}",
    )
    .unwrap()
    .policy;
    let limits = read.limits.unwrap();
    assert_eq!(
        (limits.requests, limits.endpoint_requests, limits.pending, limits.retries),
        (Some(10), Some(4), 0, None)
    );
    let breaker = read.breaker.unwrap();
    assert_eq!((breaker.consecutive, breaker.probes, breaker.successes, breaker.keep), (Some(5), 3, 3, 1));
    let failures = breaker.failures;
    assert_eq!(
        (failures.server_errors, failures.gateway_errors, failures.connect, failures.timeout),
        (false, true, false, true)
    );
    assert_eq!(failures.grpc.into_iter().collect::<Vec<_>>(), [8, 14]);
    assert_eq!(failures.statuses.into_iter().collect::<Vec<_>>(), [429]);
    let outlier = read.outlier.unwrap();
    assert_eq!((outlier.interval.as_secs(), outlier.base_ejection.as_secs(), outlier.max_percent), (10, 30, 10));
    assert!(outlier.success_rate.is_some() && outlier.failure_percentage.is_none());
    let rate = policy("{targetRefs: [{kind: Service, name: a}], breaker: {failureRate: {percent: 50}}}").unwrap();
    let breaker = rate.policy.breaker.unwrap();
    assert_eq!((breaker.consecutive, breaker.rate.unwrap().minimum), (None, 20), "a rate alone is a breaker, too");
}

#[test]
fn health_checks_are_read_with_their_defaults() {
    let read = |section: &str| {
        let spec = format!("{{targetRefs: [{{kind: Service, name: a}}], healthChecks: {section}}}");
        policy(&spec).unwrap().policy.health.unwrap()
    };
    let check = read("{http: {path: /up?q, expectedStatuses: [204, 200-399]}}");
    let Probe::Http(probe) = &check.probe else { panic!("{check:?}") };
    assert_eq!((probe.expected.as_slice(), probe.head_only), (&[204..205, 200..400][..], false));
    assert_eq!(probe.retriable, [HttpProbe::ALL], "all failures count towards the threshold");
    assert_eq!((check.interval.as_secs(), check.timeout.as_secs(), check.jitter.as_secs()), (10, 1, 1));
    assert_eq!((check.unhealthy_threshold, check.healthy_threshold, check.keep), (3, 1, 1));
    let check = read("{tcp: {send: PING, receive: PONG}, interval: 2m, minimumHealthy: 0}");
    assert_eq!(check.probe, Probe::Tcp { send: b"PING".to_vec(), receive: vec![b"PONG".to_vec()] });
    assert_eq!((check.no_traffic_interval.as_secs(), check.jitter.as_secs(), check.keep), (120, 12, 0));
    let grpc = read("{grpc: {}, unhealthyInterval: 1s}");
    assert_eq!(grpc.probe, Probe::Grpc { service: String::new(), authority: String::new() });
    assert_eq!((grpc.unhealthy_interval.as_secs(), grpc.interval.as_secs()), (1, 10));
}

#[test]
fn a_global_rate_limit_is_read_with_the_defaults_of_envoy() {
    let read = policy(
        "{targetRefs: [{kind: Service, name: a}], globalRateLimit: {service: {name: limits, namespace: infra, \
         port: 8081}, domain: shop, descriptors: [{entries: [{type: caller}, {type: header, header: X-Key, key: k}, \
         {type: fixed, value: v}, {type: sourceAddress}]}, \
         {entries: [{type: method}], limit: {requests: 9, per: minute}, hits: 2}]}}",
    );
    let read = read.unwrap().policy.global_rate_limit.unwrap();
    assert_eq!((read.service.to_string().as_str(), read.domain.as_str()), ("limits.infra:8081", "shop"));
    assert_eq!((read.timeout, read.deny_on_failure, read.tell_limits), (Duration::from_millis(20), false, false));
    let [first, second] = read.descriptors.as_slice() else { panic!("two") };
    let entries: Vec<_> = first.entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
    assert_eq!(
        entries,
        [
            ("caller", &Value::Caller),
            ("k", &Value::Header("x-key".to_owned())),
            ("generic_key", &Value::Fixed("v".to_owned())),
            ("remote_address", &Value::SourceAddress),
        ]
    );
    assert_eq!((second.limit, second.hits), (Some((9, Unit::Minute)), Some(2)));
}

#[test]
fn load_shedding_is_read_with_envoys_defaults() {
    let read = |section: &str| {
        let spec = format!("{{targetRefs: [{{kind: Service, name: a}}], loadShedding: {section}}}");
        policy(&spec).unwrap().policy.load_shedding.unwrap()
    };
    assert_eq!(read("{}"), LoadShedding::default());
    let told = read(
        "{sampleAggregatePercentile: 90.5, concurrencyUpdateInterval: 50ms, maxConcurrencyLimit: 40, \
         minConcurrencyLimit: 2, minRtt: {fixedValue: 20ms, requestCount: 9, jitter: 0, minConcurrency: 1, buffer: 50}, \
         criticality: {header: X-Importance, default: SHEDDABLE_PLUS, values: {Batch: SHEDDABLE}}}",
    );
    let min_rtt = MinRtt {
        fixed: Some(Duration::from_millis(20)),
        requests: 9,
        jitter: Percent(0),
        concurrency: 1,
        buffer: Percent::whole(50),
        ..MinRtt::default()
    };
    let gradient = Gradient {
        percentile: Percent(9050),
        update_interval: Duration::from_millis(50),
        most: 40,
        least: Some(2),
        min_rtt,
    };
    let criticality = CriticalityRule {
        header: "x-importance".to_owned(),
        default: Criticality::SheddablePlus,
        values: [("batch".to_owned(), Criticality::Sheddable)].into(),
    };
    assert_eq!(told, LoadShedding { gradient, criticality });
}

#[test]
fn refusals_name_the_field() {
    for (spec, path) in [
        ("{targetRefs: []}", "spec.targetRefs"),
        ("{targetRefs: [{kind: Pod, name: a}]}", "spec.targetRefs[0].kind"),
        ("{targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: a}]}", "spec.targetRefs[0].kind"),
        (
            "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a, sectionName: x}]}",
            "spec.targetRefs[0].sectionName",
        ),
    ] {
        assert_eq!(policy(spec).unwrap_err(), [path], "{spec}");
    }
    for (section, path) in REFUSED {
        let spec = format!("{{targetRefs: [{{kind: Service, name: a}}], {section}}}");
        assert_eq!(policy(&spec).unwrap_err(), [*path], "{section}");
    }
}

/// Global rate limits of a service that is there.
macro_rules! global {
    ($rest:literal) => {
        concat!("globalRateLimit: {service: {name: limits, port: 80}, ", $rest, "}")
    };
}

const GLOBAL_ITSELF: &str =
    "globalRateLimit: {service: {name: a, port: 80}, domain: d, descriptors: [{entries: [{type: path}]}]}";

/// Sections that are refused, and the field.
const REFUSED: &[(&str, &str)] = &[
    ("loadShedding: {maxConcurrencyLimit: 0}", "spec.loadShedding.maxConcurrencyLimit"),
    ("loadShedding: {maxConcurrencyLimit: 2}", "spec.loadShedding.maxConcurrencyLimit"),
    ("loadShedding: {concurrencyUpdateInterval: 0s}", "spec.loadShedding.concurrencyUpdateInterval"),
    ("loadShedding: {sampleAggregatePercentile: 101}", "spec.loadShedding.sampleAggregatePercentile"),
    ("loadShedding: {minRtt: {buffer: -1}}", "spec.loadShedding.minRtt.buffer"),
    ("loadShedding: {minRtt: {interval: 1s, fixedValue: 1s}}", "spec.loadShedding.minRtt.interval"),
    ("loadShedding: {minRtt: {requestCount: 5000}}", "spec.loadShedding.minRtt.requestCount"),
    ("loadShedding: {criticality: {default: URGENT}}", "spec.loadShedding.criticality.default"),
    ("loadShedding: {criticality: {header: x-pillion-port}}", "spec.loadShedding.criticality.header"),
    ("loadShedding: {criticality: {values: {critical: SHEDDABLE}}}", "spec.loadShedding.criticality.values.critical"),
    ("loadShedding: {criticality: {unknown: 1}}", "spec.loadShedding.criticality.unknown"),
    ("timeouts: {connect: 1.5s}", "spec.timeouts.connect"),
    ("timeouts: {connect: 0s}", "spec.timeouts.connect"),
    ("timeouts: {conect: 1s}", "spec.timeouts.conect"),
    (GLOBAL_ITSELF, "spec.globalRateLimit.service"),
    (global!("domain: '', descriptors: [{entries: [{type: path}]}]"), "spec.globalRateLimit.domain"),
    (global!("domain: d, descriptors: []"), "spec.globalRateLimit.descriptors"),
    (global!("domain: d, timeout: 0s, descriptors: [{entries: [{type: path}]}]"), "spec.globalRateLimit.timeout"),
    (global!("domain: d, timeout: 11s, descriptors: [{entries: [{type: path}]}]"), "spec.globalRateLimit.timeout"),
    (global!("domain: d, onFailure: maybe, descriptors: []"), "spec.globalRateLimit.onFailure"),
    (global!("domain: d, descriptors: [{entries: []}]"), "spec.globalRateLimit.descriptors[0].entries"),
    (
        global!("domain: d, descriptors: [{entries: [{type: color}]}]"),
        "spec.globalRateLimit.descriptors[0].entries[0].type",
    ),
    (
        global!("domain: d, descriptors: [{entries: [{type: header}]}]"),
        "spec.globalRateLimit.descriptors[0].entries[0].header",
    ),
    (
        global!("domain: d, descriptors: [{entries: [{type: fixed, key: k}]}]"),
        "spec.globalRateLimit.descriptors[0].entries[0].value",
    ),
    (
        global!("domain: d, descriptors: [{entries: [{type: path}, {type: sourceAddress, key: k}]}]"),
        "spec.globalRateLimit.descriptors[0].entries[1].key",
    ),
    (
        global!("domain: d, descriptors: [{hits: 0, entries: [{type: path}]}]"),
        "spec.globalRateLimit.descriptors[0].hits",
    ),
    ("loadBalancing: {algorithm: best}", "spec.loadBalancing.algorithm"),
    ("loadBalancing: {algorithm: ringHash}", "spec.loadBalancing.hashOn"),
    ("loadBalancing: {hashOn: [{header: a}]}", "spec.loadBalancing.hashOn"),
    ("loadBalancing: {algorithm: maglev, hashOn: [{header: a, queryParam: b}]}", "spec.loadBalancing.hashOn[0]"),
    (
        "loadBalancing: {algorithm: maglev, hashOn: [{cookie: {name: 'a b'}}]}",
        "spec.loadBalancing.hashOn[0].cookie.name",
    ),
    ("loadBalancing: {algorithm: maglev, tableSize: 65536, hashOn: [{header: a}]}", "spec.loadBalancing.tableSize"),
    ("loadBalancing: {choices: 3}", "spec.loadBalancing.choices"),
    ("loadBalancing: {algorithm: leastRequest, choices: 1}", "spec.loadBalancing.choices"),
    ("loadBalancing: {algorithm: peakEwma, ewma: {decay: 0s}}", "spec.loadBalancing.ewma.decay"),
    ("loadBalancing: {panicThreshold: 101}", "spec.loadBalancing.panicThreshold"),
    ("loadBalancing: {algorithm: random, slowStart: {window: 1s}}", "spec.loadBalancing.slowStart"),
    ("loadBalancing: {slowStart: {window: 1s, aggression: 0}}", "spec.loadBalancing.slowStart.aggression"),
    ("bulkhead: {}", "spec.bulkhead"),
    ("rateLimits: [{requests: 0, per: 1s}]", "spec.rateLimits[0].requests"),
    ("rateLimits: [{requests: 1, per: 0s}]", "spec.rateLimits[0].per"),
    ("rateLimits: [{requests: 1}]", "spec.rateLimits[0].per"),
    ("rateLimits: [{requests: 1, per: 1s, algorithm: concurrency}]", "spec.rateLimits[0].per"),
    ("rateLimits: [{requests: 1, per: 99999h}]", "spec.rateLimits[0].per"),
    ("rateLimits: [{requests: 1, algorithm: best, per: 1s}]", "spec.rateLimits[0].algorithm"),
    ("rateLimits: [{requests: 1, burst: 2, algorithm: fixedWindow, per: 1s}]", "spec.rateLimits[0].burst"),
    ("rateLimits: [{requests: 1, longestWait: 2s, per: 1s}]", "spec.rateLimits[0].longestWait"),
    ("rateLimits: [{requests: 10001, algorithm: slidingWindowLog, per: 1s}]", "spec.rateLimits[0].requests"),
    ("rateLimits: [{requests: 1, mostKeys: 1000001, per: 1s}]", "spec.rateLimits[0].mostKeys"),
    ("rateLimits: [{requests: 1, keys: [{type: color}], per: 1s}]", "spec.rateLimits[0].keys[0].type"),
    ("rateLimits: [{requests: 1, keys: [{type: header}], per: 1s}]", "spec.rateLimits[0].keys[0].header"),
    (
        "rateLimits: [{requests: 1, keys: [{type: header, header: 'a b'}], per: 1s}]",
        "spec.rateLimits[0].keys[0].header",
    ),
    ("rateLimits: [{requests: 1, exempt: {callers: [me]}, per: 1s}]", "spec.rateLimits[0].exempt.callers[0]"),
    (
        "rateLimits: [{requests: 1, exempt: {networks: [10.0.0.0/33]}, per: 1s}]",
        "spec.rateLimits[0].exempt.networks[0]",
    ),
    ("rateLimits: [{requests: 1, exempt: {paths: [health]}, per: 1s}]", "spec.rateLimits[0].exempt.paths[0]"),
    ("faults: {}", "spec.faults"),
    ("faults: {delay: {fixed: 0s, percent: 1}}", "spec.faults.delay.fixed"),
    ("faults: {delay: {fixed: 1s, percent: 100.1}}", "spec.faults.delay.percent"),
    ("faults: {abort: {percent: 1}}", "spec.faults.abort"),
    ("faults: {abort: {grpcStatus: GONE, percent: 1}}", "spec.faults.abort.grpcStatus"),
    ("faults: {abort: {httpStatus: 99, percent: 1}}", "spec.faults.abort.httpStatus"),
    ("directResponse: {status: 42}", "spec.directResponse.status"),
    ("limits: {pending: 1}", "spec.limits.pending"),
    ("limits: {requests: -1}", "spec.limits.requests"),
    ("limits: {pendingTimeout: 0s}", "spec.limits.pendingTimeout"),
    ("limits: {perEndpoint: {retries: 1}}", "spec.limits.perEndpoint.retries"),
    ("breaker: {consecutiveFailures: 0}", "spec.breaker.consecutiveFailures"),
    ("breaker: {failureRate: {percent: 0}}", "spec.breaker.failureRate.percent"),
    ("breaker: {maxOpenTime: 1ms}", "spec.breaker.maxOpenTime"),
    ("breaker: {probes: 2, successesToClose: 3}", "spec.breaker.successesToClose"),
    ("breaker: {failOn: [5xx, teapot]}", "spec.breaker.failOn[1]"),
    ("breaker: {statuses: [4290]}", "spec.breaker.statuses[0]"),
    ("outlierDetection: {}", "spec.outlierDetection"),
    ("healthChecks: {}", "spec.healthChecks"),
    ("healthChecks: {tcp: {}, grpc: {}}", "spec.healthChecks"),
    ("healthChecks: {http: {}}", "spec.healthChecks.http"),
    ("healthChecks: {http: {path: up}}", "spec.healthChecks.http.path"),
    ("healthChecks: {http: {path: /, host: 'a b'}}", "spec.healthChecks.http.host"),
    ("healthChecks: {http: {path: /, method: POST}}", "spec.healthChecks.http.method"),
    ("healthChecks: {http: {path: /, expectedStatuses: [200, 600]}}", "spec.healthChecks.http.expectedStatuses[1]"),
    ("healthChecks: {http: {path: /, expectedStatuses: [300-200]}}", "spec.healthChecks.http.expectedStatuses[0]"),
    ("healthChecks: {tcp: {send: ''}}", "spec.healthChecks.tcp.send"),
    ("healthChecks: {tcp: {}, interval: 0s}", "spec.healthChecks.interval"),
    ("healthChecks: {tcp: {}, unhealthyThreshold: 0}", "spec.healthChecks.unhealthyThreshold"),
    ("healthChecks: {tcp: {}, minimumHealthy: 2}", "spec.healthChecks.minimumHealthy"),
    ("healthChecks: {tcp: {}, alwaysLog: true}", "spec.healthChecks.alwaysLog"),
    ("fallback: {}", "spec.fallback"),
    ("fallback: {backends: [{name: b, namespace: other, port: 80}]}", "spec.fallback.backends[0].namespace"),
    ("fallback: {response: {status: 100}}", "spec.fallback.response.status"),
    ("outlierDetection: {successRate: {enforcing: 101}}", "spec.outlierDetection.successRate.enforcing"),
    ("timeouts: {perTry: 0s}", "spec.timeouts.perTry"),
    ("timeouts: {streamIdle: 5}", "spec.timeouts.streamIdle"),
    ("timeouts: {connectionAge: 0s}", "spec.timeouts.connectionAge"),
    ("retries: {attempts: 2}", "spec.retries.on"),
    ("retries: {on: [5xx, always]}", "spec.retries.on[1]"),
    ("retries: {codes: [302]}", "spec.retries.codes[0]"),
    ("retries: {budget: {percent: 101}}", "spec.retries.budget.percent"),
    ("retries: {backoff: {base: 1s, max: 1ms}}", "spec.retries.backoff.max"),
    ("retries: {bodyLimit: 99999999}", "spec.retries.bodyLimit"),
];

#[test]
fn faults_are_read_to_the_millionth() {
    let policy = policy(
        "{targetRefs: [{kind: Service, name: a}], faults: {delay: {fixed: 2s, percent: 0.0001},
          abort: {grpcStatus: UNAVAILABLE, percent: 100}, headers: [{name: X-Chaos, value: 'yes'}]}}",
    );
    let faults = policy.unwrap().policy.faults.unwrap();
    assert_eq!(faults.delay, Some((Duration::from_secs(2), Share(1))));
    assert_eq!(faults.abort, Some((Abort::Grpc(14), Share(1_000_000))));
    assert_eq!((faults.headers[0].name.as_str(), faults.max_active), ("x-chaos", 1024));
}

#[test]
fn retries_are_read_and_codes_imply_their_condition() {
    let policy = policy(
        "{targetRefs: [{kind: Service, name: a}], retries: {attempts: 2, on: [reset], codes: [429], perTry: 1s, \
         backoff: {base: 5ms, max: 1s}, bodyLimit: 1024, budget: {percent: 10, minPerSecond: 3}}}",
    )
    .unwrap();
    let retries = policy.policy.retries.unwrap();
    assert_eq!(retries.on, ["reset", "retriable-status-codes"]);
    assert_eq!((retries.attempts, retries.body_limit), (Some(2), Some(1024)));
    assert_eq!((retries.base, retries.most), (Some(Duration::from_millis(5)), Some(Duration::from_secs(1))));
    let budget = retries.budget.unwrap();
    assert_eq!((budget.percent, budget.min_per_second), (Some(10), Some(3)));
}

#[test]
fn sessions_are_read_and_what_makes_no_sense_is_refused() {
    let read =
        |section: &str| policy(&format!("{{targetRefs: [{{kind: Service, name: a}}], sessionPersistence: {section}}}"));
    let session =
        read("{sessionName: sid, strict: true, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}");
    let session = session.unwrap().policy.session.unwrap();
    assert_eq!((session.name_for("r"), session.absolute), ("sid".to_owned(), Some(Duration::from_secs(3600))));
    assert!(session.strict && session.permanent && !session.by_header);
    let session = read("{type: Header, idleTimeout: 30s}").unwrap().policy.session.unwrap();
    assert_eq!(session.name_for("HTTPRoute/shop/a/0"), "x-pillion-session.httproute.shop.a.0");
    assert_eq!(read("{}").unwrap().policy.session.unwrap().name_for("a.shop:80"), "pillion-session.a.shop.80");
    for (section, path) in [
        ("{type: Query}", "type"),
        ("{sessionName: 'a b'}", "sessionName"),
        ("{type: Header, sessionName: Cookie}", "sessionName"),
        ("{absoluteTimeout: 0s}", "absoluteTimeout"),
        ("{absoluteTimeout: 1s500ms}", "absoluteTimeout"),
        ("{absoluteTimeout: 1s, idleTimeout: 2s}", "idleTimeout"),
        ("{cookieConfig: {lifetimeType: Permanent}}", "absoluteTimeout"),
        ("{cookieConfig: {lifetimeType: Eternal}}", "cookieConfig.lifetimeType"),
        ("{type: Header, cookieConfig: {}}", "cookieConfig"),
    ] {
        assert_eq!(read(section).unwrap_err(), [format!("spec.sessionPersistence.{path}")], "{section}");
    }
}

#[test]
fn subsets_are_read_and_what_makes_no_sense_is_refused() {
    let read = |section: &str| policy(&format!("{{targetRefs: [{{kind: Service, name: a}}], subsets: {section}}}"));
    let subsets = read("[{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2, tier: gold}}]");
    let subsets = subsets.unwrap().policy.subsets.unwrap();
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    assert!(subsets[0].has(&labels(&[("version", "v1"), ("app", "a")])));
    assert!(!subsets[1].has(&labels(&[("version", "v2")])));
    for (section, path) in [
        ("[{name: V1, labels: {a: b}}]", "subsets[0].name"),
        ("[{name: v1, labels: {}}]", "subsets[0].labels"),
        ("[{name: v1, labels: {a: b}}, {name: v1, labels: {a: c}}]", "subsets[1].name"),
    ] {
        assert_eq!(read(section).unwrap_err(), [format!("spec.{path}")], "{section}");
    }
}

#[test]
fn what_keeps_callers_on_a_backend_is_read() {
    let read = |section: &str| policy(&format!("{{targetRefs: [{{kind: Service, name: a}}], split: {section}}}"));
    let split = read("{hashOn: [{header: X-User}, {sourceAddress: true}]}").unwrap().policy.split.unwrap();
    assert_eq!(split.hash_on, [HashOn::Header("x-user".to_owned()), HashOn::SourceAddress]);
    assert_eq!(read("{}").unwrap_err(), ["spec.split.hashOn"]);
    assert_eq!(read("{hashOn: [{header: 'a b'}]}").unwrap_err(), ["spec.split.hashOn[0].header"]);
}
