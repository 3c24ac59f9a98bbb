use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tinyjson::JsonValue;

use super::counters::Histogram;
use super::limits::{LOG_PATH_BYTES_MAX, LOG_RING_BYTES};
use super::*;
use crate::fault::Reason;
use crate::tls::AlpnProtocol;

/// A plan and its endpoints, both of this epoch.
pub(super) fn plan(epoch: u64, text: &str) -> (Plan, EndpointSets) {
    let config = weir_config::parse("test.toml", text)
        .expect("a right file")
        .0;
    let mut plan = Plan::compile(&config).expect("a right plan");
    let mut endpoints =
        EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).expect("right endpoints");
    (plan.epoch, endpoints.epoch) = (epoch, epoch);
    (plan, endpoints)
}

/// Two routes to two upstreams; `flip` lists them the other way round, so that all ids differ.
fn two(epoch: u64, flip: bool) -> (Plan, EndpointSets) {
    let routes = [
        "[[route]]\nname = \"a\"\nmatch = \"/a\"\nto = \"one\"\n",
        "[[route]]\nname = \"b\"\nmatch = \"/b\"\nto = \"two\"\n",
    ];
    let upstreams = [
        "one = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n",
        "two = [\"10.0.0.3:80\"]\n",
    ];
    let order = if flip { [1, 0] } else { [0, 1] };
    let [a, b] = order.map(|i| routes[i]);
    let [one, two] = order.map(|i| upstreams[i]);
    let text = format!("[listen.\"127.0.0.1:8080\"]\n[upstream]\n{one}{two}{a}{b}");
    plan(epoch, &text)
}

pub(super) fn event(route: u32) -> ExchangeEvent<'static> {
    ExchangeEvent {
        time_ms: 1_795_339_800_125,
        id: RequestId(1, 2),
        given_id: b"",
        client: Some(IpAddr::from([192, 0, 2, 7])),
        method: b"GET",
        host: b"example.com",
        path: b"/a",
        query: Some(b"x=1"),
        version: "HTTP/1.1",
        tls: None,
        sni: b"",
        client_cert: b"",
        user_agent: b"curl/8.9",
        referer: b"https://example.com/",
        fields: b"",
        status: 200,
        grpc_status: None,
        bytes_in: 10,
        bytes_out: 1_000,
        listener: ListenerId(0),
        route: Some(RouteId(route)),
        upstream: Some(UpstreamId(route)),
        endpoint: Some(0),
        attempts: 1,
        total_us: 12_345,
        queue_us: 0,
        connect_us: 250,
        first_byte_us: 9_000,
        errno: 0,
        reason: None,
    }
}

fn page(obs: &Obs) -> String {
    let mut page = MetricsPage::default();
    obs.metrics(&mut page);
    page.finish()
}

/// The value of a series, exactly as written on the page.
fn series(page: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    page.lines().find_map(value)
}

#[test]
fn ids_are_32_digits() {
    let id = RequestId(0xab, 0x0123_4567_89ab_cdef);
    let mut hex = [0; 32];
    id.write_hex(&mut hex);
    assert_eq!(&hex, b"00000000000000ab0123456789abcdef");
    assert_eq!(id.to_string().as_bytes(), hex);
}

#[test]
fn every_duration_falls_between_its_bounds() {
    for us in (0..100_000_u64)
        .chain((0..60).map(|bits| 1 << bits))
        .chain([u64::MAX])
    {
        let bucket = Histogram::bucket(us);
        assert!(bucket < Histogram::BUCKETS);
        assert!(
            Histogram::bound_us(bucket).is_none_or(|bound| us < bound),
            "{us}"
        );
        if bucket > 0 {
            assert!(us >= Histogram::bound_us(bucket - 1).unwrap(), "{us}");
        }
    }
    assert_eq!(Histogram::bound_us(Histogram::BUCKETS - 2), Some(1 << 27));
}

#[test]
fn round_bounds_are_on_every_page_and_divide_exactly() {
    let plan = two(1, false);
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    for us in [4_999, 5_000, 999_999, 1_000_000, 9_999_999, 10_000_000] {
        cores[0].exchange(
            &plan.0,
            &plan.1,
            &ExchangeEvent {
                total_us: us,
                first_byte_us: us,
                connect_us: us,
                ..event(0)
            },
        );
    }
    let page = page(&obs);
    let one = "upstream=\"one\"";
    for (family, labels) in [
        ("weir_route_duration_seconds", "route=\"a\"".to_owned()),
        ("weir_upstream_connect_seconds", one.to_owned()),
        ("weir_upstream_first_byte_seconds", one.to_owned()),
        (
            "weir_endpoint_first_byte_seconds",
            format!("{one},endpoint=\"10.0.0.1:80\""),
        ),
    ] {
        let below = |bound: &str| {
            let name = format!("{family}_bucket{{{labels},le=\"{bound}\"}}");
            series(&page, &name)
        };
        for (bound, readings) in [
            ("0.005", 1),
            ("0.01", 2),
            ("0.025", 2),
            ("0.05", 2),
            ("0.1", 2),
            ("0.25", 2),
            ("0.5", 2),
            ("1", 3),
            ("2.5", 4),
            ("5", 4),
            ("10", 5),
            ("+Inf", 6),
        ] {
            assert_eq!(below(bound), Some(readings), "{family} {bound}");
        }
    }
    obs.stop();
}

#[test]
fn a_grpc_call_counts_in_the_class_of_its_status() {
    let plan = two(1, false);
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    let call = |grpc_status, reason, status| ExchangeEvent {
        status,
        grpc_status: Some(grpc_status),
        reason,
        ..event(0)
    };
    for (event, class) in [
        (call(0, None, 200), 2),
        (call(1, None, 200), 4),
        (call(2, None, 200), 5),
        (call(3, None, 200), 4),
        (call(4, None, 200), 5),
        (call(5, None, 200), 4),
        (call(6, None, 200), 4),
        (call(7, None, 200), 4),
        (call(8, None, 200), 4),
        (call(9, None, 200), 4),
        (call(10, None, 200), 4),
        (call(11, None, 200), 4),
        (call(12, None, 200), 5),
        (call(13, None, 200), 5),
        (call(14, None, 200), 5),
        (call(15, None, 200), 5),
        (call(16, None, 200), 4),
        // No status of gRPC's: UNKNOWN.
        (call(17, None, 200), 5),
        (call(u32::MAX, None, 200), 5),
        // Weir's own: by its reason.
        (call(12, Some(Reason::NoRoute), 200), 4),
        (call(14, Some(Reason::ConnectFailed), 200), 5),
        (call(1, Some(Reason::ClientClosed), 200), 4),
        // An answer that is none of gRPC's: by its own status.
        (call(12, None, 404), 4),
        (call(14, None, 503), 5),
        (call(1, Some(Reason::ClientClosed), 0), 0),
    ] {
        assert_eq!(event.class(), class, "{event:?}");
        cores[0].exchange(&plan.0, &plan.1, &event);
    }
    let page = page(&obs);
    for (status, calls) in [(0, 1), (1, 3), (2, 3), (4, 1), (12, 3), (14, 3), (16, 1)] {
        for labels in [
            "weir_grpc_calls_total{listener=\"127.0.0.1:8080\"",
            "weir_upstream_grpc_calls_total{upstream=\"one\"",
        ] {
            let name = format!("{labels},grpc_status=\"{status}\"}}");
            assert_eq!(series(&page, &name), Some(calls), "{name}");
        }
    }
    for name in [
        "weir_exchanges_total{listener=\"127.0.0.1:8080\",class=\"2xx\"}",
        "weir_route_exchanges_total{route=\"a\",class=\"2xx\"}",
        "weir_upstream_exchanges_total{upstream=\"one\",class=\"2xx\"}",
    ] {
        assert_eq!(series(&page, name), Some(1), "{name}");
    }
    obs.stop();
}

/// What begins at 1 has no first increase, which is the one that an alert waits for.
#[test]
fn every_series_is_there_from_the_start() {
    let plan = two(1, false);
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    let names = |page: &str| {
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect::<HashSet<_>>()
    };
    let before = names(&page(&obs));
    for class in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"] {
        for labels in [
            "weir_exchanges_total{listener=\"127.0.0.1:8080\",",
            "weir_route_exchanges_total{route=\"a\",",
            "weir_upstream_exchanges_total{upstream=\"one\",",
            "weir_endpoint_exchanges_total{upstream=\"one\",endpoint=\"10.0.0.2:80\",",
        ] {
            let name = format!("{labels}class=\"{class}\"}}");
            assert!(before.contains(&name), "{name}");
        }
    }
    for (at, reason) in Reason::ALL.iter().enumerate() {
        let status = [0, 101, 200, 308, 404, 502][at % 6];
        let event = ExchangeEvent {
            status,
            reason: Some(*reason),
            ..event(0)
        };
        cores[0].exchange(&plan.0, &plan.1, &event);
        if reason.is_of_endpoint() {
            cores[0].attempt_failed(UpstreamId(0), 0, *reason, 0);
        }
    }
    for error in H2Error::ALL {
        cores[0].http2_ended(ListenerId(0), Some(*error), true);
        cores[0].upstream_http2_failed(UpstreamId(0), *error);
    }
    for failure in TlsFailure::ALL {
        cores[0].tls_failed(ListenerId(0), *failure);
    }
    let after = names(&page(&obs));
    // A route that was never used shows its exchanges only, whatever its class.
    let new = after.difference(&before);
    let new: Vec<_> = new.filter(|name| !name.contains("{route=\"")).collect();
    assert!(new.is_empty(), "{new:?}");
    obs.stop();
}

/// Whatever cores and how many requests meet it: a line when an endpoint begins to fail, one when it answers again.
#[test]
fn an_endpoint_in_trouble_is_logged_twice() {
    let plan = two(1, false);
    let (obs, cores) = Obs::start(2, (&plan.0, &plan.1), None).unwrap();
    let (mut troubles, start) = (EndpointTroubles::default(), Instant::now());
    let mut look =
        |second: u64| obs.look_for_trouble(&mut troubles, start + Duration::from_secs(second));
    let fail =
        |core: usize| cores[core].attempt_failed(UpstreamId(0), 0, Reason::ConnectFailed, 111);
    let answer = || cores[1].exchange(&plan.0, &plan.1, &event(0));
    answer();
    assert_eq!(look(1), []);
    // A stray failure among many answers is none.
    (0..100).for_each(|_| answer());
    fail(0);
    assert_eq!(look(2), []);
    (0..3).for_each(|_| fail(0));
    (0..2).for_each(|_| fail(1));
    answer();
    let line = "endpoint 10.0.0.1:80 of upstream one fails: \
                connect_failed: Connection refused (os error 111) (5 attempts failed, 1 answered)";
    assert_eq!(look(3), [(LogLevel::Warn, line.to_owned())]);
    (0..7).for_each(|_| fail(1));
    assert_eq!(look(4), []);
    // It is not well before it has answered for a while.
    assert_eq!(look(8), []);
    answer();
    fail(0);
    assert_eq!(look(9), []);
    answer();
    assert_eq!(look(10), []);
    answer();
    let line = "endpoint 10.0.0.1:80 of upstream one answers again after 9 s \
                (13 attempts failed, 2 answered since)";
    assert_eq!(look(12), [(LogLevel::Info, line.to_owned())]);
    assert_eq!(look(13), []);
    obs.stop();
}

#[test]
fn only_some_endpoints_in_trouble_are_named_and_the_rest_counted() {
    let servers: Vec<_> = (0..50).map(|n| format!("10.0.0.{n}:80")).collect();
    let text = format!(
        "[listen.\"127.0.0.1:80\"]\n[upstream]\nup = {servers:?}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    );
    let plan = plan(0, &text);
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    (0..50).for_each(|at| cores[0].attempt_failed(UpstreamId(0), at, Reason::BadResponse, 0));
    let lines = obs.look_for_trouble(&mut EndpointTroubles::default(), Instant::now());
    assert_eq!(lines.len(), limits::TROUBLE_LINES_MAX + 1);
    assert_eq!(
        lines[0].1,
        "endpoint 10.0.0.0:80 of upstream up fails: bad_response (1 attempt failed, 0 answered)"
    );
    let more = "endpoints: 46 more have begun to fail and 0 more answer again";
    assert_eq!(lines[limits::TROUBLE_LINES_MAX].1, more);
    obs.stop();
}

#[test]
fn control_reads_what_cores_report_and_counts_what_it_misses() {
    let plan = two(1, false);
    let (obs, cores) = Obs::start(2, (&plan.0, &plan.1), None).unwrap();
    let failed = |endpoint: usize| CoreReport::EndpointTlsFailed {
        endpoint: format!("endpoint 10.0.0.{endpoint}:443"),
        cause: "the certificate has expired".to_owned(),
    };
    let take = || -> Vec<_> {
        let reports = obs.take_reports();
        reports.iter().map(ToString::to_string).collect()
    };
    assert!(take().is_empty());
    // Both cores meet the same endpoint.
    cores.iter().for_each(|core| core.report(failed(1)));
    cores[1].report(failed(2));
    let line = |n| format!("TLS to endpoint 10.0.0.{n}:443 failed: the certificate has expired");
    assert_eq!(take(), [line(1), line(2)]);
    assert!(take().is_empty());
    (0..limits::REPORTS_MAX + 3).for_each(|n| cores[0].report(failed(n)));
    assert_eq!(take().len(), limits::REPORTS_MAX);
    let dropped = "weir_core_reports_dropped_total{core=\"0\"}";
    assert_eq!(series(&page(&obs), dropped), Some(3));
    // There is room again.
    cores[0].report(failed(7));
    assert_eq!(take(), [line(7)]);
    obs.stop();
}

#[test]
fn counters_survive_a_reload_by_name() {
    let (old, new) = (two(1, false), two(2, true));
    let (obs, mut cores) = Obs::start(2, (&old.0, &old.1), None).unwrap();
    cores[0].exchange(&old.0, &old.1, &event(0));
    cores[1].exchange(&old.0, &old.1, &event(0));
    cores[1].exchange(&old.0, &old.1, &event(1));
    let before = page(&obs);
    assert_eq!(
        series(
            &before,
            "weir_route_exchanges_total{route=\"a\",class=\"2xx\"}"
        ),
        Some(2)
    );
    assert_eq!(
        series(
            &before,
            "weir_route_exchanges_total{route=\"b\",class=\"2xx\"}"
        ),
        Some(1)
    );

    obs.prepare(&new.0, &new.1);
    // The first core has the new plan, the second has not; an exchange of each plan ends on both.
    cores[0].plan_changed(&new.0, &new.1);
    for core in &cores {
        core.exchange(&new.0, &new.1, &event(1));
        core.exchange(&old.0, &old.1, &event(1));
    }
    let after = page(&obs);
    assert_eq!(
        series(
            &after,
            "weir_route_exchanges_total{route=\"a\",class=\"2xx\"}"
        ),
        Some(4)
    );
    assert_eq!(
        series(
            &after,
            "weir_route_exchanges_total{route=\"b\",class=\"2xx\"}"
        ),
        Some(3)
    );
    let endpoint = "{upstream=\"one\",endpoint=\"10.0.0.1:80\",class=\"2xx\"}";
    assert_eq!(
        series(&after, &format!("weir_endpoint_exchanges_total{endpoint}")),
        Some(4)
    );
    assert_eq!(series(&after, "weir_core_plan_epoch{core=\"0\"}"), Some(2));
    assert_eq!(series(&after, "weir_core_plan_epoch{core=\"1\"}"), Some(1));
    obs.stop();
}

#[test]
fn a_reload_stops_counting_removed_parts() {
    let old = two(1, false);
    let new = plan(
        2,
        "[listen.\"127.0.0.1:9090\"]\n[[route]]\nname = \"c\"\nmatch = \"/*\"\nrespond = { status = 204 }\n",
    );
    let (obs, mut cores) = Obs::start(1, (&old.0, &old.1), None).unwrap();
    obs.prepare(&new.0, &new.1);
    cores[0].plan_changed(&new.0, &new.1);
    cores[0].exchange(&old.0, &old.1, &event(1));
    cores[0].upstream_closed(UpstreamId(7), 9);
    cores[0].connection_closed(ListenerId(7));
    assert_eq!(obs.ended_core(), None);
    let page = page(&obs);
    assert!(!page.contains("route=\"b\""));
    assert_eq!(
        series(
            &page,
            "weir_route_exchanges_total{route=\"c\",class=\"2xx\"}"
        ),
        Some(0)
    );
    assert_eq!(
        series(&page, "weir_core_exchanges_total{core=\"0\"}"),
        Some(1)
    );
    obs.stop();
}

#[test]
fn the_end_of_a_core_is_detected() {
    let plan = two(1, false);
    let (obs, mut cores) = Obs::start(3, (&plan.0, &plan.1), None).unwrap();
    let core = cores.remove(1);
    let thread = thread::spawn(move || {
        let _core = core;
        std::panic::resume_unwind(Box::new("a bug"));
    });
    assert!(thread.join().is_err());
    assert_eq!(obs.ended_core(), Some(1));
    obs.stop();
}

#[test]
fn a_core_on_its_own_follows_its_plan() {
    let (old, new) = (two(1, false), two(2, true));
    let mut core = CoreObs::detached(&old.0, &old.1);
    core.exchange(&old.0, &old.1, &event(0));
    core.plan_changed(&new.0, &new.1);
    core.exchange(&new.0, &new.1, &event(1));
    let shared = [core.shared.clone()];
    let mut page = MetricsPage::default();
    metrics::render(&shared, &mut page);
    assert_eq!(
        series(
            &page.finish(),
            "weir_route_exchanges_total{route=\"a\",class=\"2xx\"}"
        ),
        Some(2)
    );
}

#[test]
fn the_metrics_page_is_well_formed() {
    let plan = plan(
        1,
        "[listen.\"127.0.0.1:8080\"]\n[upstream]\none = [\"10.0.0.1:80\"]\n\
         [[route]]\nname = 'odd \"name\" \\'\nmatch = \"/*\"\nto = \"one\"\n",
    );
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    let failed = ExchangeEvent {
        status: 502,
        reason: Some(Reason::ConnectFailed),
        ..event(0)
    };
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    cores[0].exchange(&plan.0, &plan.1, &failed);
    let page = page(&obs);
    let (mut families, mut seen) = (HashSet::new(), HashSet::new());
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(family), "{line} outside {family}");
            assert!(seen.insert(name), "{name} twice");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert_eq!(
        series(
            &page,
            "weir_reasons_total{listener=\"127.0.0.1:8080\",reason=\"connect_failed\"}"
        ),
        Some(1)
    );
    assert!(page.contains("{route=\"odd \\\"name\\\" \\\\\",class=\"5xx\"} 1"));
    assert!(
        page.contains("weir_upstream_connect_seconds_bucket{upstream=\"one\",le=\"0.000256\"} 2\n")
    );
    assert!(page.contains("weir_upstream_connect_seconds_sum{upstream=\"one\"} 0.0005\n"));
    obs.stop();
}

#[test]
fn the_reference_names_every_metric_and_field() {
    let reference = include_str!("reference.md");
    let (metrics, rest) = reference.split_once("## Access log").unwrap();
    let plan = two(1, false);
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    let page = page(&obs);
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let on_page: HashSet<_> = types.filter_map(|rest| rest.split(' ').next()).collect();
    let quoted: HashSet<_> = metrics
        .split('`')
        .filter(|word| word.starts_with("weir_"))
        .collect();
    for name in &on_page {
        assert!(quoted.contains(name), "{name} is not in the reference");
    }
    // What control adds is on its page.
    let of_control = concat!(
        include_str!("../control/report.rs"),
        include_str!("../control/names.rs"),
        include_str!("../control/certificates.rs")
    );
    for name in quoted {
        let known = on_page.contains(name) || of_control.contains(&format!("\"{name}\""));
        assert!(known, "{name} is in the reference only");
    }
    let mut line = String::new();
    line::exchange(&mut line, &LogFormat::Json.into(), &event(0), None);
    let line: JsonValue = line.parse().unwrap();
    let log = rest.split("### Formats").next().unwrap();
    let rows = log
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split_once(" |"));
    let fields: HashSet<_> = rows
        .flat_map(|(cell, _)| cell.trim_end_matches('`').split("`, `"))
        .collect();
    let written: HashSet<_> = line
        .get::<HashMap<String, JsonValue>>()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(fields, written);
    obs.stop();
}

/// A directory that goes away with the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-obs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::yield_now();
    }
}

#[test]
fn log_lines_have_every_field_and_the_names_of_their_plan() {
    let scratch = Scratch::new("fields");
    let file = scratch.path("access.log");
    let (old, new) = (two(1, false), two(2, true));
    let log = AccessLog::file(file.clone(), LogFormat::Json).unwrap();
    let (obs, mut cores) = Obs::start(1, (&old.0, &old.1), Some(log)).unwrap();
    let failed = ExchangeEvent {
        status: 502,
        client: Some("2001:db8::1".parse().unwrap()),
        errno: 111,
        reason: Some(Reason::ConnectFailed),
        tls: Some(TlsParameters {
            is_13: true,
            suite: 0x1301,
            is_resumed: true,
            protocol: AlpnProtocol::Http1,
        }),
        sni: b"example.com",
        client_cert: b"CN=a",
        path: b"/\"}\r\n{\"forged\":1,\xff",
        query: Some(b"a=1&token=2"),
        ..event(1)
    };
    let local = ExchangeEvent {
        route: None,
        upstream: None,
        endpoint: None,
        client: None,
        method: b"",
        status: 400,
        reason: Some(Reason::BadRequest),
        ..event(0)
    };
    cores[0].exchange(&old.0, &old.1, &failed);
    obs.prepare(&new.0, &new.1);
    cores[0].plan_changed(&new.0, &new.1);
    cores[0].exchange(&old.0, &old.1, &event(0));
    cores[0].exchange(&new.0, &new.1, &event(0));
    cores[0].exchange(&new.0, &new.1, &local);
    obs.stop();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<JsonValue> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let expected: JsonValue = r#"{
        "time": "2026-11-22T09:30:00.125Z", "id": "00000000000000010000000000000002",
        "client": "2001:db8::1", "listener": "127.0.0.1:8080", "method": "GET",
        "host": "example.com", "path": "/\"}\r\n{\"forged\":1,\\xff", "query": "a=1&token=REDACTED",
        "version": "HTTP/1.1", "user_agent": "curl/8.9", "referer": "https://example.com/",
        "tls": "1.3", "cipher": "TLS13_AES_128_GCM_SHA256", "resumed": true,
        "sni": "example.com", "client_cert": "CN=a",
        "status": 502, "grpc_status": null, "bytes_in": 10, "bytes_out": 1000, "route": "b", "upstream": "two",
        "endpoint": "10.0.0.3:80", "attempts": 1, "total_ms": 12.345, "queue_ms": 0,
        "connect_ms": 0.25, "first_byte_ms": 9, "errno": "ECONNREFUSED", "reason": "connect_failed"
    }"#
    .parse()
    .unwrap();
    assert_eq!(lines[0], expected);
    let text = |line: usize, member: &str| lines[line][member].get::<String>().cloned();
    assert_eq!(text(1, "route").as_deref(), Some("a"));
    assert_eq!(text(2, "route").as_deref(), Some("b"));
    assert_eq!(text(1, "client").as_deref(), Some("192.0.2.7"));
    assert_eq!(text(3, "reason").as_deref(), Some("bad_request"));
    let tls = ["tls", "cipher", "resumed", "sni", "client_cert"];
    for absent in ["client", "route", "upstream", "endpoint"]
        .into_iter()
        .chain(tls)
    {
        assert!(lines[3][absent].is_null(), "{absent}");
    }
}

#[test]
fn long_values_are_cut_and_marked() {
    let plan = two(1, false);
    let (mut ring, mut reader) = rtrb::RingBuffer::new(LOG_RING_BYTES);
    let long = vec![b'x'; 100_000];
    let event = ExchangeEvent {
        given_id: &long,
        method: &long,
        host: &long,
        path: &long,
        query: Some(&long),
        sni: &long,
        client_cert: &long,
        user_agent: &long,
        referer: &long,
        ..event(0)
    };
    assert!(log_record::write(&mut ring, plan.1.epoch, &event));
    let mut bytes = Vec::new();
    log_record::drain(&mut reader, &mut bytes, usize::MAX);
    assert!(bytes.len() < 32 * 1024, "{}", bytes.len());
    let Some(log_record::LogRecord::Exchange(_, event)) = log_record::next(&mut bytes.as_slice())
    else {
        panic!("no record");
    };
    for text in [
        event.method,
        event.host,
        event.path,
        event.query.unwrap(),
        event.sni,
        event.client_cert,
        event.user_agent,
        event.referer,
    ] {
        assert!(text.ends_with(b"xx[cut]"), "{}", text.escape_ascii());
    }
}

#[test]
fn a_full_ring_drops_whole_lines_and_says_so() {
    let scratch = Scratch::new("full");
    // A pipe that nobody reads yet: a disk that stands still.
    let file = scratch.path("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &file,
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&file)
        .unwrap();
    let plan = two(1, false);
    let log = AccessLog::file(file, LogFormat::Json).unwrap();
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), Some(log)).unwrap();
    let long = vec![b'/'; 4 * LOG_PATH_BYTES_MAX];
    let event = ExchangeEvent {
        path: &long,
        ..event(0)
    };
    let fit = LOG_RING_BYTES / LOG_PATH_BYTES_MAX;
    let sent = 4 * fit as u64;
    for _ in 0..sent {
        cores[0].exchange(&plan.0, &plan.1, &event);
    }
    let dropped = || cores[0].shared.counts.log_dropped.get() + obs.log.unwritten();
    until("the drops", || dropped() > sent / 2);
    let (mut lines, mut told) = (0, 0);
    for line in io::BufRead::lines(io::BufReader::new(reader)) {
        let line: JsonValue = line.unwrap().parse().unwrap();
        let line: &HashMap<String, JsonValue> = line.get().unwrap();
        if let Some(dropped) = line.get("dropped") {
            told += *dropped.get::<f64>().unwrap() as u64;
        } else {
            let path = line["path"].get::<String>().unwrap();
            assert_eq!(path.len(), LOG_PATH_BYTES_MAX + "[cut]".len());
            lines += 1;
        }
        if lines + told == sent {
            break;
        }
    }
    assert_eq!(told, dropped());
    obs.stop();
}

#[test]
fn refused_connections_leave_half_of_the_log_ring_to_exchanges() {
    let plan = two(1, false);
    let logging = Arc::new(AtomicBool::new(true));
    let (core, _reader) = CoreObs::with(
        &Arc::new(PlanNames::of(&plan.0, &plan.1, None)),
        logging,
        ReportQueue::default(),
        8 * 1024,
    );
    let refused = ExchangeEvent {
        reason: Some(Reason::ConnectionLimit),
        ..event(0)
    };
    let dropped = || core.shared.counts.log_dropped.get();
    for _ in 0..1_000 {
        core.connection_refused(&refused);
    }
    let flood = dropped();
    assert!((900..1_000).contains(&flood), "{flood}");
    for _ in 0..15 {
        core.exchange(&plan.0, &plan.1, &event(0));
    }
    assert_eq!(dropped(), flood, "there was room for exchanges");
    let counts = core.sheet.listener(ListenerId(0)).unwrap();
    assert_eq!(
        counts.reasons[Reason::ConnectionLimit as usize].get(),
        1_000
    );
    let answered: u64 = counts.exchanges.iter().map(|count| count.get()).sum();
    assert_eq!(answered, 15);
}

#[test]
fn lines_lost_to_a_full_disk_are_counted() {
    let plan = two(1, false);
    let log = AccessLog::file("/dev/full".into(), LogFormat::Json).unwrap();
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), Some(log)).unwrap();
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    until("the loss", || {
        series(&page(&obs), "weir_log_lost_bytes_total").unwrap() > 100
    });
    obs.stop();
}

#[test]
fn a_moved_log_is_opened_again() {
    let scratch = Scratch::new("rotate");
    let (file, moved) = (scratch.path("access.log"), scratch.path("access.log.1"));
    let plan = two(1, false);
    let log = AccessLog::file(file.clone(), LogFormat::Text).unwrap();
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), Some(log)).unwrap();
    let lines =
        |path: &std::path::Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    until("the first line", || lines(&file) == 1);
    fs::rename(&file, &moved).unwrap();
    obs.set_access_log(Some(
        AccessLog::file(file.clone(), LogFormat::Text).unwrap(),
    ));
    // What the thread takes before it has the new file is for the old one.
    until("a line in the new file", || {
        cores[0].exchange(&plan.0, &plan.1, &event(0));
        lines(&file) > 0
    });
    let before = lines(&moved);
    // The same file once more: nothing is lost or torn.
    obs.set_access_log(Some(
        AccessLog::file(file.clone(), LogFormat::Text).unwrap(),
    ));
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    obs.stop();
    let after = lines(&file);
    let text = fs::read_to_string(&file).unwrap();
    assert!(after > 1 && text.lines().all(|line| line.starts_with("2026-")));
    assert_eq!(lines(&moved), before);
    // Turned off.
    let (obs, cores) = Obs::start(1, (&plan.0, &plan.1), None).unwrap();
    cores[0].exchange(&plan.0, &plan.1, &event(0));
    obs.stop();
    assert_eq!(lines(&file), after);
}
