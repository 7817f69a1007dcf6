use std::fs;

use clap::CommandFactory;

use super::*;

const FILE: &str = r#"{
    "workload": "orders-1", "namespace": "shop", "service_account": "orders",
    "control_plane": "127.0.0.1:15010", "control_plane_root": "/r.pem", "join_token_file": "/t",
    "mesh": "127.0.0.1:0", "tcp": ["127.0.0.1:9000=ledger.shop:7000"],
    "certificate_lifetime": "1h30m", "workers": 3
}"#;

fn load_with(file: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<Bootstrap, BootstrapError> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("bootstrap.json");
    fs::write(&path, file).expect("writable");
    let mut all = vec!["pillion-proxy".into(), "--bootstrap".into(), path.into_os_string()];
    all.extend(args.iter().map(OsString::from));
    load_from(all, &environment.iter().map(|(name, value)| (name.into(), value.into())).collect())
}

#[test]
fn a_file_alone_is_enough_and_defaults_fill_the_rest() {
    let loaded = load_with(FILE, &[], &[]).expect("valid");
    assert_eq!(loaded.id.to_string(), "spiffe://cluster.local/ns/shop/sa/orders");
    assert_eq!(loaded.certificate_lifetime, Duration::from_secs(5400));
    assert_eq!(loaded.outbound_http, Some(local(15001)));
    assert_eq!(loaded.mesh, Some(local(0)));
    assert_eq!(loaded.tcp[0].destination.to_string(), "ledger.shop:7000");
    assert_eq!(loaded.workers.get(), 3);
    assert_eq!(loaded.timeouts.idle, Duration::from_secs(3600));
    assert_eq!(loaded.limits.max_header_bytes, 60 * 1024);
    assert_eq!(loaded.access_log, AccessLog::Errors);
    let listen = Some(SocketAddr::from(([0, 0, 0, 0], 15090)));
    assert_eq!(loaded.metrics, MetricsSettings { listen, ..MetricsSettings::default() });
    assert!(loaded.is_own_port(15090) && !loaded.is_own_port(15091));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let environment = [("PILLION_WORKERS", "5"), ("PILLION_NAMESPACE", "other"), ("PILLION_ADMIN", "")];
    let loaded = load_with(FILE, &["--workers", "7", "--outbound-http=off"], &environment).expect("valid");
    assert_eq!(loaded.workers.get(), 7);
    assert_eq!(loaded.id.namespace(), "other");
    assert_eq!(loaded.id.service_account(), "orders");
    assert_eq!(loaded.outbound_http, None);
    assert_eq!(loaded.admin, local(15000));
}

#[test]
fn a_collector_is_known_by_the_variables_that_opentelemetry_names() {
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer x,tenant=a"),
        ("PILLION_OTLP_SIGNALS", "traces,logs"),
    ];
    let otlp = load_with(FILE, &[], &environment).expect("valid").otlp.expect("on");
    assert_eq!(otlp.endpoint.to_string(), "http://127.0.0.1:4318/");
    assert_eq!(otlp.protocol, OtlpProtocol::Http);
    assert_eq!(otlp.headers.len(), 2);
    assert!(!format!("{otlp:?}").contains("Bearer"));
    assert!(otlp.wants(OtlpSignal::Logs) && !otlp.wants(OtlpSignal::Metrics));
    let ours = [environment[0], ("PILLION_OTLP_ENDPOINT", "https://collector:4317")];
    let otlp = load_with(FILE, &[], &ours).expect("valid").otlp.expect("on");
    assert_eq!((otlp.endpoint.to_string(), otlp.protocol), ("https://collector:4317/".to_owned(), OtlpProtocol::Grpc));
    assert_eq!(load_with(FILE, &[], &environment[1..3]).expect("valid").otlp, None);
}

#[test]
fn interception_is_off_until_it_is_asked_for() {
    assert_eq!(load_with(FILE, &[], &[]).expect("valid").intercept, None);
    let loaded = load_with(FILE, &["--intercept=redirect", "--dns=127.0.0.1:15053"], &[]).expect("valid");
    let intercept = loaded.intercept.expect("on");
    assert_eq!(intercept.inbound.to_string(), "[::]:15006");
    assert_eq!(intercept.unknown, UnknownDestinations::Pass);
    assert_eq!(loaded.dns_upstream, Vec::new());
}

#[test]
fn tcp_ports_may_be_repeated_or_listed() {
    let ports = ["--tcp", "127.0.0.1:1=a.b:1,127.0.0.1:2=[::1]:2", "--tcp=127.0.0.1:3=10.0.0.1:3"];
    assert_eq!(load_with(FILE, &ports, &[]).expect("valid").tcp.len(), 3);
    let listed = [("PILLION_TCP", "127.0.0.1:1=a.b:1,127.0.0.1:2=c.d:2")];
    assert_eq!(load_with(FILE, &[], &listed).expect("valid").tcp.len(), 2);
}

#[test]
fn a_wrong_setting_is_refused_where_it_was_given() {
    type Case = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 25] = [
        (FILE, &["--inbound", "[::]:1"], &[], "--inbound needs --intercept"),
        (FILE, &["--intercept", "yes"], &[], "none of off, redirect, tproxy"),
        (FILE, &["--intercept", "redirect", "--outbound-http", "off"], &[], "needs --outbound-http on a loopback"),
        (FILE, &["--unknown-destinations", "drop"], &[], "neither pass nor refuse"),
        (FILE, &["--mesh", "x"], &[], "neither IP:PORT nor \"off\""),
        (FILE, &["--mesh", "0.0.0.0:15008"], &[], "not all interfaces"),
        (FILE, &["--metrics-istio", "yes"], &[], "neither on nor off"),
        (FILE, &["--metrics-max-series", "0"], &[], "--metrics-max-series: must not be 0"),
        (FILE, &["--head-timeout", "10"], &[], "write it like"),
        (FILE, &["--head-timeout", "0s"], &[], "--head-timeout: must be longer than 0"),
        (FILE, &["--workers", "0"], &[], "--workers: must not be 0"),
        (FILE, &["--namespace", "UPPER"], &[], "make no identity"),
        (FILE, &[], &[("PILLION_TCP", "9000=x")], "in the environment"),
        (FILE, &["--otlp-signals", "logs"], &[], "--otlp-signals needs --otlp-endpoint"),
        (FILE, &["--otlp-endpoint", "collector:4317"], &[], "must be a URL"),
        (FILE, &["--otlp-headers", "secret"], &[], "is written NAME=VALUE"),
        (FILE, &["--trace-sampling", "101%"], &[], "is no share"),
        (FILE, &["--trace-sampling", "0.5"], &[], "is no share"),
        (FILE, &["--trace-slow", "0s"], &[], "longer than 0, or off"),
        (FILE, &["--trace-errors", "yes"], &[], "neither on nor off"),
        (FILE, &["--trace-headers", "always"], &[], "none of auto, on, off"),
        (FILE, &[], &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], "neither grpc nor http/protobuf"),
        (r#"{"worklod": "x"}"#, &[], &[], "unknown field `worklod`"),
        (r#"{"idle_timeout": 3}"#, &[], &[], "in the bootstrap file"),
        ("{}", &[], &[], "--workload is needed"),
    ];
    for (file, args, environment, wanted) in cases {
        let error = load_with(file, args, environment).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
    }
}

#[test]
fn durations_add_up_and_nonsense_is_refused() {
    let parse = |text: &str| text.parse::<value::Span>().map(Duration::from).ok();
    assert_eq!(parse("1d2h3m4s5ms"), Some(Duration::from_millis(93_784_005)));
    assert_eq!(parse("0s"), Some(Duration::ZERO));
    for wrong in ["", "1", "s", "1.5s", "-1s", "1s ", "1y", "99999999999s", "4294967295d4294967295d1é"] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
}

#[test]
fn help_says_the_default_of_every_setting() {
    for argument in Settings::command().get_arguments() {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("[default: ") || help.contains("[required]"), "{}: {help}", argument.get_id());
    }
}

#[test]
fn help_and_version_are_usage_not_failure() {
    let error = load_from(["pillion-proxy".into(), "--help".into()], &HashMap::new()).expect_err("help");
    assert!(matches!(&error, BootstrapError::Usage(error) if error.exit_code() == 0), "{error}");
}
