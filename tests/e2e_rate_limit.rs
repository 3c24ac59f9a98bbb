//! `limit` and `concurrency` with real sockets, on two cores.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::*;

const TWO_CORES: &str = "cores = 2\n";
const HELLO: &str = "[[route]]\nname = \"hello\"\nmatch = \"/*\"\nrespond = \"hello\"\n";

/// A request with these fields.
fn with_fields(path: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: weir.test\r\n{fields}\r\n")
}

/// The statuses of these requests, each on a connection of its own, so that both cores get some.
fn statuses(weir: &Weir, requests: &[String]) -> Vec<u16> {
    requests
        .iter()
        .map(|request| weir.ask(request).status())
        .collect()
}

#[test]
fn a_client_over_its_limit_is_told_when_to_come_back() {
    let weir = Weir::start(&format!("{TWO_CORES}{HELLO}limit = \"60/h, burst 2\""));
    let first = weir.ask(get("/a"));
    assert_eq!(first.status(), 200);
    assert_eq!(
        first.field("RateLimit-Policy"),
        Some("\"60/h per ip, burst 2\";q=60;w=3600")
    );
    assert_eq!(
        first.field("RateLimit"),
        Some("\"60/h per ip, burst 2\";r=1;t=60")
    );
    assert_eq!(first.field("Retry-After"), None);
    assert_eq!(weir.ask(get("/b")).status(), 200);
    let refused = weir.ask(get("/c"));
    refused.expect_refusal(429, "rate_limit", "http_request_denied");
    let seconds: u32 = refused.field("Retry-After").unwrap().parse().unwrap();
    assert!((50..=60).contains(&seconds), "{seconds}");
    assert!(
        refused
            .field("RateLimit")
            .unwrap()
            .starts_with("\"60/h per ip, burst 2\";r=0;t=1")
    );
    let entry = weir.entry("/c");
    assert_eq!(entry.text("reason"), "rate_limit");
    assert_eq!(entry.text("policy"), "limit");
    let name = "weir_limit_refused_total{policy=\"limit\",limit=\"route/hello/1\"}";
    assert_eq!(weir.metric(name), 1.0);
    assert_eq!(weir.metric("weir_limit_keys"), 1.0);
}

#[test]
fn keys_are_counted_apart_and_a_request_without_its_key_by_its_address() {
    let weir = Weir::start(&format!(
        "{TWO_CORES}trusted_proxies = [\"127.0.0.1\"]\n\
         [[route]]\nmatch = \"/ip\"\nrespond = \"x\"\nlimit = \"1/h\"\n\
         [[route]]\nmatch = \"/key\"\nrespond = \"x\"\nlimit = \"1/h per header:X-Key\"\n\
         [[route]]\nmatch = \"/cookie\"\nrespond = \"x\"\nlimit = \"1/h per cookie:sid\"\n\
         [[route]]\nmatch = \"/query\"\nrespond = \"x\"\nlimit = \"1/h per query:key\"\n\
         [[route]]\nmatch = \"/of/{{tenant}}/*\"\nrespond = \"x\"\nlimit = \"1/h per param:tenant + ip\"\n\
         [[route]]\nmatch = \"/host\"\nrespond = \"x\"\nlimit = \"1/h per host\"\n\
         [[route]]\nmatch = \"/all\"\nrespond = \"x\"\nlimit = \"1/h per global\"\n\
         [policy.each]\nlimit = \"1/h per route\"\n\
         [[route]]\nmatch = \"/one\"\nrespond = \"x\"\nuse = \"each\"\n\
         [[route]]\nmatch = \"/other\"\nrespond = \"x\"\nuse = \"each\"\n"
    ));
    let from = |path: &str, address: &str, fields: &[&str]| {
        let forwarded = format!("X-Forwarded-For: {address}");
        let fields: Vec<_> = fields.iter().copied().chain([forwarded.as_str()]).collect();
        weir.ask(with_fields(path, &fields)).status()
    };
    // Addresses; of IPv6 the /64.
    assert_eq!(from("/ip", "192.0.2.1", &[]), 200);
    assert_eq!(from("/ip", "192.0.2.1", &[]), 429);
    assert_eq!(from("/ip", "::ffff:192.0.2.1", &[]), 429);
    assert_eq!(from("/ip", "192.0.2.2", &[]), 200);
    assert_eq!(from("/ip", "2001:db8::1", &[]), 200);
    assert_eq!(from("/ip", "2001:db8::ffff:2", &[]), 429);
    assert_eq!(from("/ip", "2001:db8:0:1::1", &[]), 200);
    // Values.
    for (path, one, other) in [
        ("/key", "X-Key: a", "X-Key: b"),
        ("/cookie", "Cookie: x=y; sid=a", "Cookie: sid=b"),
    ] {
        assert_eq!(from(path, "192.0.2.1", &[one]), 200);
        assert_eq!(from(path, "192.0.2.9", &[one]), 429);
        assert_eq!(from(path, "192.0.2.1", &[other]), 200);
        assert_eq!(from(path, "192.0.2.1", &[]), 200, "its address");
        assert_eq!(from(path, "192.0.2.1", &[]), 429);
        assert_eq!(from(path, "192.0.2.2", &[]), 200);
        // An endpoint might take any one of several, so a second one is no way to a new key.
        let another = one.replace("=a", "=c").replace(": a", ": c");
        assert_eq!(from(path, "192.0.2.7", &[one, &another]), 200);
        let another = another.replace("=c", "=d").replace(": c", ": d");
        assert_eq!(
            from(path, "192.0.2.7", &[&another, one]),
            429,
            "its address"
        );
    }
    assert_eq!(
        from("/cookie", "192.0.2.9", &["Cookie: sid=\"a\""]),
        429,
        "the same value in quotes"
    );
    assert_eq!(from("/query?key=a", "192.0.2.1", &[]), 200);
    assert_eq!(from("/query?x=1&k%65y=%61", "192.0.2.2", &[]), 429);
    assert_eq!(from("/query?key=b", "192.0.2.1", &[]), 200);
    assert_eq!(from("/query?key=c&key=a", "192.0.2.7", &[]), 200);
    assert_eq!(from("/query?k%65y=d&key=a", "192.0.2.7", &[]), 429);
    assert_eq!(from("/of/a/1", "192.0.2.1", &[]), 200);
    assert_eq!(from("/of/%61/2", "192.0.2.1", &[]), 429);
    assert_eq!(from("/of/a/2", "192.0.2.2", &[]), 200);
    assert_eq!(from("/of/b/2", "192.0.2.1", &[]), 200);
    let host = |host: &str| {
        let request = format!("GET /host HTTP/1.1\r\nHost: {host}\r\n\r\n");
        weir.ask(request).status()
    };
    assert_eq!(
        [host("a.test"), host("A.test:80"), host("b.test")],
        [200, 429, 200]
    );
    assert_eq!(from("/all", "192.0.2.1", &[]), 200);
    assert_eq!(from("/all", "192.0.2.2", &[]), 429);
    // One limit of a set, with a bucket for each route.
    let each = ["/one", "/one", "/other", "/other"].map(|path| from(path, "192.0.2.1", &[]));
    assert_eq!(each, [200, 429, 200, 429]);
}

#[test]
fn a_cost_a_dry_run_and_a_reload() {
    let config = format!(
        "{TWO_CORES}{HELLO}limit = [\n\
         {{ rate = \"10/h\", cost = 4, name = \"dear\" }},\n\
         {{ rate = \"1/h\", dry_run = true, name = \"trial\" }},\n]\n"
    );
    let weir = Weir::start(&config);
    let first = weir.ask(get("/1"));
    assert_eq!(first.field("RateLimit"), Some("\"dear\";r=6;t=1440"));
    let policy = first.field("RateLimit-Policy");
    assert_eq!(
        policy,
        Some("\"dear\";q=10;w=3600"),
        "the trial is not told"
    );
    assert_eq!(weir.ask(get("/2")).status(), 200);
    assert_eq!(weir.entry("/2").text("would_refuse"), "limit");
    let name = "weir_limit_dry_run_total{policy=\"limit\",limit=\"trial\"}";
    assert_eq!(weir.metric(name), 1.0);
    assert_eq!(weir.ask(get("/3")).status(), 429);
    weir.reload(&config.replace("hello", "again"));
    eventually("the reload", || {
        (weir.metric("weir_plan_epoch") == 2.0).then_some(())
    });
    assert_eq!(weir.ask(get("/4")).status(), 429, "its name is the same");
    weir.reload(&config.replace("dear", "cheap"));
    eventually("the reload", || {
        (weir.metric("weir_plan_epoch") == 3.0).then_some(())
    });
    assert_eq!(weir.ask(get("/5")).status(), 200);
}

#[test]
fn a_listener_limits_what_no_route_takes_too() {
    let weir = Weir::start(&format!(
        "{TWO_CORES}[listen.\"127.0.0.1:0\"]\nlimit = \"3/h\"\n\
         [[route]]\nmatch = \"/x\"\nrespond = \"x\"\n"
    ));
    let asked = ["/x", "/none", "/x", "/none", "/x"].map(get);
    assert_eq!(statuses(&weir, &asked), [200, 404, 200, 429, 429]);
}

#[test]
fn a_limit_of_the_top_level_counts_requests_without_a_route() {
    let weir = Weir::start(&format!(
        "{TWO_CORES}limit = \"3/h\"\n[[route]]\nmatch = \"/x\"\nrespond = \"x\"\n\
         [[route]]\nmatch = \"/free\"\nrespond = \"x\"\nlimit = \"off\"\n"
    ));
    let asked = ["/none", "/x", "/free", "/none", "/x", "/none", "/free"].map(get);
    assert_eq!(statuses(&weir, &asked), [404, 200, 200, 404, 429, 429, 200]);
}

#[test]
fn contradictions_are_errors_of_the_file() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    let check = |keys: &str| {
        std::fs::write(&file, format!("[listen.\"127.0.0.1:8080\"]\n{HELLO}{keys}")).unwrap();
        let (code, text) = run_weir(&["check", file.to_str().unwrap()]);
        assert_eq!(code, Some(3), "{text}");
        text
    };
    let text = check("limit = \"5/m per claim:sub\"");
    let expected = "no `jwt` verifies the claim `sub` in route `hello`";
    assert!(text.contains(expected), "{text}");
    let other =
        "[[route]]\nmatch = \"/b\"\nrespond = \"b\"\nlimit = { rate = \"2/m\", name = \"x\" }\n";
    let text = check(&format!(
        "limit = {{ rate = \"1/m\", name = \"x\" }}\n{other}"
    ));
    assert!(
        text.contains("another limit called `x` says something else"),
        "{text}"
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Several seconds of more requests than the limit allows, from both cores.
#[test]
fn two_cores_admit_the_rate_within_the_stated_error() {
    const RATE: f64 = 400.0;
    const BURST: f64 = 200.0;
    // min(200 / (8 x 2), 400 / 50)
    const BATCH: f64 = 8.0;
    let weir = Weir::start(&format!(
        "{TWO_CORES}{HELLO}limit = \"400/s per global, burst 200\""
    ));
    let admitted = Arc::new(AtomicU32::new(0));
    let begin = Instant::now();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut conn, admitted) = (weir.connect(), admitted.clone());
            thread::spawn(move || {
                let mut last = Instant::now();
                while begin.elapsed() < Duration::from_secs(3) {
                    conn.send(get("/"));
                    let status = conn.response().status();
                    if status == 200 {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        last = Instant::now();
                    } else {
                        assert_eq!(status, 429);
                        thread::yield_now();
                    }
                }
                last
            })
        })
        .collect();
    let last = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .max();
    let seconds = last.unwrap().duration_since(begin).as_secs_f64();
    let admitted = f64::from(admitted.load(Ordering::Relaxed));
    let most = BURST + RATE * seconds + 2.0 * BATCH;
    assert!(admitted <= most, "{admitted} of {most} in {seconds} s");
    // The clients compete with other tests for the processor, so the lower bound counts what they could have had.
    let least = BURST + RATE * 3.0 * 0.99 - 2.0 * BATCH;
    assert!(admitted >= least * 0.9, "{admitted}, at least {least}");
}

#[test]
fn a_flood_of_invented_keys_evicts_no_busy_one() {
    let weir = Weir::start(&format!(
        "{TWO_CORES}[limits]\nkeys = 1000\n{HELLO}limit = \"2/h per header:X-Key\""
    ));
    let busy = with_fields("/", &["X-Key: busy"]);
    assert_eq!(
        statuses(&weir, &[busy.clone(), busy.clone(), busy.clone()]),
        [200, 200, 429]
    );
    let flood: Vec<_> = (0..4)
        .map(|client| {
            let mut conn = weir.connect();
            thread::spawn(move || {
                for round in 0..500 {
                    let keys = (0..100).map(|n| format!("X-Key: {client}-{round}-{n}"));
                    let requests = keys.map(|key| with_fields("/", &[&key]));
                    conn.send(requests.collect::<String>());
                    (0..100).for_each(|_| {
                        conn.response();
                    });
                }
            })
        })
        .collect();
    flood.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(weir.ask(busy).status(), 429);
    assert_eq!(weir.metric("weir_limit_keys"), 2_000.0);
    let name = "weir_limit_overflowed_total{policy=\"limit\",limit=\"route/hello/1\"}";
    assert!(weir.metric(name) > 100_000.0);
}

#[test]
fn so_many_requests_at_once() {
    let arrived = Arc::new(AtomicU32::new(0));
    let seen = arrived.clone();
    let endpoint = Endpoint::script(move |conn| {
        while let Some(request) = conn.next_request() {
            if request.target() == "/slow" {
                seen.fetch_add(1, Ordering::Relaxed);
                // Until the client leaves or the test ends.
                conn.wait_for_bytes();
                break;
            }
            conn.send(ok("done"));
        }
    });
    let weir = Weir::with(
        &format!("{TWO_CORES}concurrency = \"2 per ip\"\n"),
        &[&endpoint],
    );
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let conn = weir.connect();
            conn.send(get("/slow"));
            conn
        })
        .collect();
    eventually("both requests", || {
        (arrived.load(Ordering::Relaxed) == 2).then_some(())
    });
    let refused = weir.ask(get("/third"));
    refused.expect_refusal(429, "concurrency_limit", "http_request_denied");
    assert_eq!(refused.field("Retry-After"), Some("1"));
    assert_eq!(weir.entry("/third").text("policy"), "concurrency");
    slow.into_iter().for_each(|mut conn| conn.reset_now());
    eventually("a free place", || {
        (weir.ask(get("/fast")).status() == 200).then_some(())
    });
    let name = "weir_limit_refused_total{policy=\"concurrency\",limit=\"/1\"}";
    assert!(weir.metric(name) >= 1.0);
}

#[test]
fn explain_says_what_would_be_counted() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    std::fs::write(
        &file,
        format!(
            "[listen.\"127.0.0.1:8080\"]\n{HELLO}limit = \"5/m per header:X-Key, burst 9\"\n\
             concurrency = \"7 per ip\"\n"
        ),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (code, text) = run_weir(&[
        "explain",
        file,
        "GET",
        "http://weir.test:8080/x",
        "-H",
        "X-Key: a",
    ]);
    assert_eq!(code, Some(0), "{text}");
    let line =
        "policy     limit would check: 5/m per header:x-key, burst 9 (counts header x-key \"a\")";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("policy     concurrency would check: 7 per ip (counts "),
        "{text}"
    );
    std::fs::remove_dir_all(&dir).unwrap();
}
