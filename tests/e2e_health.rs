//! Which endpoints failed requests and checks take out of use, and how they come back.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use e2e::*;

/// The status of an endpoint that does not answer.
const HANGS: u16 = 1;

/// An endpoint whose status can be changed while it runs. 0 answers with no HTTP.
struct Switched {
    endpoint: Endpoint,
    status: Arc<AtomicU16>,
}

impl Switched {
    fn new(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let shared = status.clone();
        let endpoint = Endpoint::answering(move |_| match shared.load(Ordering::SeqCst) {
            0 => "no HTTP\r\n\r\n".to_owned(),
            HANGS => {
                while shared.load(Ordering::SeqCst) == HANGS {
                    sleep(Duration::from_millis(5));
                }
                String::new()
            }
            status => format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\nok"),
        });
        Self { endpoint, status }
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// How many requests for this path it has seen.
    fn count(&self, path: &str) -> usize {
        let target = path;
        let requests = self.endpoint.requests();
        let is_for = |request: &&Message| request.target() == target;
        requests.iter().filter(is_for).count()
    }
}

/// A Weir of one core that routes everything to these endpoints, with these keys of the upstream.
fn weir_with(keys: &str, endpoints: &[&Switched]) -> Weir {
    Weir::start(&config_with(keys, endpoints))
}

fn config_with(keys: &str, endpoints: &[&Switched]) -> String {
    let servers: Vec<_> = endpoints
        .iter()
        .map(|each| format!("\"{}\"", each.endpoint.name))
        .collect();
    format!(
        "[upstream.up]\nbalance = \"round_robin\"\nservers = [{}]\n{keys}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        servers.join(", ")
    )
}

#[test]
fn five_failures_eject_an_endpoint() {
    let (bad, good) = (Switched::new(503), Switched::new(200));
    let weir = weir_with("retries = \"off\"", &[&bad, &good]);
    let failed = (0..40)
        .filter(|_| weir.ask(get("/")).status() == 503)
        .count();
    assert_eq!((failed, bad.count("/")), (5, 5));
    weir.wait_for("is ejected for 30 s: it answers 503");
    let labels = format!("upstream=\"up\",endpoint=\"{}\"", bad.endpoint.name);
    assert_eq!(
        weir.metric(&format!("weir_endpoint_ejected{{{labels}}}")),
        1.0
    );
    let total = format!("weir_endpoint_ejections_total{{{labels},cause=\"503\"}}");
    assert_eq!(weir.metric(&total), 1.0);
}

#[test]
fn errors_that_are_not_listed_and_good_answers_end_a_row() {
    let (one, two) = (Switched::new(500), Switched::new(500));
    let weir = weir_with("", &[&one, &two]);
    (0..40).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 500));
    assert_eq!(one.count("/") + two.count("/"), 40);
    assert!(one.count("/") >= 19 && two.count("/") >= 19);
    for _ in 0..6 {
        one.set(503);
        (0..8).for_each(|_| drop(weir.ask(post("/", ""))));
        one.set(200);
        (0..4).for_each(|_| drop(weir.ask(post("/", ""))));
    }
    assert!(one.count("/") > 50, "{}", one.count("/"));
}

#[test]
fn an_endpoint_on_trial_is_back_after_a_good_answer_and_out_after_a_bad_one() {
    let (bad, good) = (Switched::new(0), Switched::new(200));
    let weir = weir_with(
        "eject = { failures = 2, duration = \"300ms\" }",
        &[&bad, &good],
    );
    let name = format!(
        "weir_endpoint_ejections_total{{upstream=\"up\",endpoint=\"{}\",cause=\"invalid\"}}",
        bad.endpoint.name
    );
    let ask_until = |what: &str, count: f64| {
        eventually(what, || {
            assert_eq!(weir.ask(get("/")).status(), 200, "a retry saves it");
            (weir.metric(&name) >= count).then_some(())
        });
    };
    ask_until("the ejection", 1.0);
    weir.wait_for("is ejected for 0.3 s: requests fail (invalid)");
    weir.wait_for("is tried again after its ejection");
    ask_until("the second ejection", 2.0);
    weir.wait_for("is ejected for 0.6 s");
    bad.set(200);
    weir.wait_for("is tried again after its ejection");
    let before = bad.count("/");
    eventually("an answer on trial", || {
        drop(weir.ask(get("/")));
        (bad.count("/") > before).then_some(())
    });
    weir.wait_for("answers and is in use again");
    let before = bad.count("/");
    (0..20).for_each(|_| drop(weir.ask(get("/"))));
    assert!(bad.count("/") >= before + 9);
}

#[test]
fn the_last_endpoint_stays() {
    let (one, two) = (Switched::new(503), Switched::new(503));
    let weir = weir_with("panic = \"0%\"", &[&one, &two]);
    (0..60).for_each(|_| assert_eq!(weir.ask(get("/")).field("Content-Length"), Some("2")));
    let off = weir_with("eject = \"off\"", &[&one, &two]);
    (0..20).for_each(|_| assert_eq!(off.ask(get("/")).status(), 503));
}

#[test]
fn a_low_share_of_good_answers_ejects() {
    let (bad, good) = (Switched::new(200), Switched::new(200));
    let keys = "retries = \"off\"\neject = { failures = 100, success_rate = \"80%\" }";
    let weir = weir_with(keys, &[&bad, &good]);
    let mut asked = 0u32;
    eventually("the ejection", || {
        for _ in 0..50 {
            bad.set(if asked % 4 < 2 { 503 } else { 200 });
            asked += 1;
            drop(weir.ask(get("/")));
        }
        let labels = format!("upstream=\"up\",endpoint=\"{}\"", bad.endpoint.name);
        let name = format!("weir_endpoint_ejections_total{{{labels},cause=\"success_rate\"}}");
        (weir.metric(&name) >= 1.0).then_some(())
    });
    weir.wait_for("too few of its answers are good");
}

/// Checks that are frequent enough for a test.
const CHECKS: &str =
    "health = { http = \"/up\", interval = \"200ms\", timeout = \"500ms\" }\neject = \"off\"";

impl Weir {
    /// Whether the checks of this endpoint pass.
    fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        let name = &endpoint.name;
        let labels = format!("upstream=\"up\",endpoint=\"{name}\"");
        self.metric(&format!("weir_endpoint_healthy{{{labels}}}")) == 1.0
    }

    fn wait_for_health(&self, endpoint: &Endpoint, is_healthy: bool) {
        eventually("the verdict", || {
            (self.is_healthy(endpoint) == is_healthy).then_some(())
        });
    }
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    let (bad, good) = (Switched::new(200), Switched::new(200));
    let weir = weir_with(CHECKS, &[&bad, &good]);
    let checks = bad.endpoint.requests();
    let check = checks.first().expect("a check before the first request");
    assert_eq!((check.method(), check.target()), ("GET", "/up"));
    assert_eq!(check.field("Host"), Some(&*bad.endpoint.name));
    let agent = concat!("weir/", env!("CARGO_PKG_VERSION"), " (health check)");
    assert_eq!(check.field("User-Agent"), Some(agent));
    for (fault, why) in [
        (503, "status 503"),
        (HANGS, "timed out after 500ms"),
        (0, "its answer is invalid"),
    ] {
        bad.set(fault);
        weir.wait_for(&format!(
            "endpoint {} of upstream up is down: {why}",
            bad.endpoint.name
        ));
        weir.wait_for_health(&bad.endpoint, false);
        let before = bad.count("/");
        (0..10).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
        assert_eq!(bad.count("/"), before);
        let recovered = Instant::now();
        bad.set(200);
        weir.wait_for_health(&bad.endpoint, true);
        assert!(recovered.elapsed() < Duration::from_secs(2));
        (0..4).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
        assert_eq!(bad.count("/"), before + 2);
    }
    let labels = format!("upstream=\"up\",endpoint=\"{}\"", bad.endpoint.name);
    let changes = |to| {
        weir.metric(&format!(
            "weir_endpoint_health_changes_total{{{labels},to=\"{to}\"}}"
        ))
    };
    assert_eq!((changes("up"), changes("down")), (4.0, 3.0));
}

#[test]
fn checks_keep_their_connection() {
    let endpoint = Switched::new(200);
    let _weir = weir_with(CHECKS, &[&endpoint]);
    eventually("five checks", || (endpoint.count("/up") >= 5).then_some(()));
    assert_eq!(endpoint.endpoint.connections(), 1);
}

#[test]
fn the_first_check_of_a_start_comes_before_the_first_request() {
    let (bad, good) = (Switched::new(503), Switched::new(200));
    let weir = weir_with(CHECKS, &[&bad, &good]);
    (0..10).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
    assert_eq!(bad.count("/"), 0);
    // A start waits no longer than a check may take.
    let hanging = Switched::new(HANGS);
    let keys = "panic = \"0%\"\nhealth = { http = \"/up\", timeout = \"300ms\" }";
    let begun = Instant::now();
    let weir = weir_with(keys, &[&hanging, &good]);
    assert!(begun.elapsed() < Duration::from_millis(2_000));
    assert!(!weir.is_healthy(&hanging.endpoint));
    hanging.set(200);
}

#[test]
fn a_connection_alone_may_be_the_check() {
    let endpoint = Endpoint::script(|conn| drop(conn.rest()));
    let refusing = free_address("127.0.0.1");
    let config = format!(
        "[upstream.up]\nservers = [\"{}\", \"{refusing}\"]\nhealth = {{ tcp = true, interval = \"200ms\", timeout = \"3s\" }}\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    );
    let weir = Weir::start(&config);
    weir.wait_for(&format!(
        "endpoint {refusing} of upstream up is down: cannot connect: Connection refused"
    ));
    assert!(weir.is_healthy(&endpoint));
}

#[test]
fn status_body_method_host_and_headers_are_settings() {
    let endpoint = Endpoint::answering(|request| match request.field("X-Probe") {
        Some("weir") if request.field("Host") == Some("checks.internal") => {
            "HTTP/1.1 418 Whatever\r\nContent-Length: 5\r\n\r\nready".to_owned()
        }
        _ => ok("ready"),
    });
    let config = |body: &str| {
        format!(
            "[upstream.up]\nservers = \"{}\"\npanic = \"0%\"\n\
             health = {{ http = \"/?a=1\", interval = \"200ms\", timeout = \"3s\", status = [418, \"500-501\"], body = \"{body}\", \
             method = \"POST\", host = \"checks.internal\", headers = {{ X-Probe = \"weir\" }} }}\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
            endpoint.name
        )
    };
    let weir = Weir::start(&config("read"));
    assert!(weir.is_healthy(&endpoint));
    let check = endpoint.requests().remove(0);
    assert_eq!((check.method(), check.target()), ("POST", "/?a=1"));
    weir.reload(&config("redy"));
    weir.wait_for("is down: its answer lacks the text in `body`");
}

#[test]
fn endpoints_that_join_get_nothing_before_their_first_good_check_not_even_in_a_panic() {
    let (old, new) = (Switched::new(200), Switched::new(503));
    let others = [Switched::new(503), Switched::new(503)];
    let weir = weir_with(CHECKS, &[&old]);
    weir.reload(&config_with(CHECKS, &[&old, &new, &others[0], &others[1]]));
    // Only a quarter of the endpoints is healthy, but the others have never been.
    weir.wait_for(&format!(
        "endpoint {} of upstream up is down: status 503",
        new.endpoint.name
    ));
    (0..20).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
    assert_eq!(new.count("/"), 0);
    assert!(!weir.is_healthy(&new.endpoint));
    new.set(200);
    weir.wait_for_health(&new.endpoint, true);
    (0..10).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
    assert_eq!(new.count("/"), 5);
    // One that has passed a check is down when it fails, and a panic may use it.
    new.set(503);
    weir.wait_for_health(&new.endpoint, false);
    let labels = "upstream=\"up\",state=\"unchecked\"";
    let waiting = weir.metric(&format!("weir_upstream_endpoints{{{labels}}}"));
    assert_eq!(waiting, 2.0);
}
