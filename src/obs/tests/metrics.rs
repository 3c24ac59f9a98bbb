//! Histograms, and the page of metrics.

use std::collections::{HashMap, HashSet};

use tinyjson::JsonValue;

use super::super::counters::Histogram;
use super::super::*;
use super::{event, page, plan, series, two};
use crate::fault::Reason;

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
        // An unknown number counts as UNKNOWN.
        (call(17, None, 200), 5),
        (call(u32::MAX, None, 200), 5),
        // Weir's own answer counts by its reason.
        (call(12, Some(Reason::NoRoute), 200), 4),
        (call(14, Some(Reason::ConnectFailed), 200), 5),
        (call(1, Some(Reason::ClientClosed), 200), 4),
        // An answer that is not gRPC counts by its HTTP status.
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

/// A series that starts at 1 hides its first increase, which is the one that an alert waits for.
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
    // A route without requests shows only its exchanges, in every class.
    let new = after.difference(&before);
    let new: Vec<_> = new.filter(|name| !name.contains("{route=\"")).collect();
    assert!(new.is_empty(), "{new:?}");
    obs.stop();
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
    let reference = include_str!("../reference.md");
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
    // Control adds metrics of its own.
    let of_control = concat!(
        include_str!("../../control/admin_pages.rs"),
        include_str!("../../control/discovery/page.rs"),
        include_str!("../../control/endpoint_metrics.rs"),
        include_str!("../../control/health/mod.rs"),
        include_str!("../../control/ip_lists.rs"),
        include_str!("../../control/issuer_keys.rs"),
        include_str!("../../control/certificates.rs")
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
