use std::time::Duration;

use pillion_wire::load_shedding::{Criticality, CriticalityRule, Gradient, LoadShedding, MinRtt, Percent};

use crate::{
    core::policy::{Abort, Algorithm, HashOn, Share, SlowStart, Target, TrafficPolicy, Zones},
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
    ("fallback: {}", "spec.fallback"),
    ("fallback: {backends: [{name: b, namespace: other, port: 80}]}", "spec.fallback.backends[0].namespace"),
    ("fallback: {response: {status: 100}}", "spec.fallback.response.status"),
    ("outlierDetection: {successRate: {enforcing: 101}}", "spec.outlierDetection.successRate.enforcing"),
    ("timeouts: {perTry: 0s}", "spec.timeouts.perTry"),
    ("timeouts: {streamIdle: 5}", "spec.timeouts.streamIdle"),
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
