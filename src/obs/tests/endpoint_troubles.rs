//! Endpoints that fail and recover.

use std::time::{Duration, Instant};

use super::super::*;
use super::{event, page, plan, series, two};
use crate::fault::Reason;

/// However many cores and requests meet it, a trouble is one line at its start and one at its end.
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
    // A stray failure among many answers is no trouble.
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
    // It has not recovered before it has answered for a while.
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
    // Both cores report the same endpoint.
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
