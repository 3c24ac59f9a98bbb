//! Endpoints that misbehave, and which of their failures a retry saves.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::SeqCst;

use e2e::*;

/// Retries that no budget stops.
const FREE: &str = "backoff = \"1ms\", budget_min = 1000";

/// A Weir that routes everything to these endpoints in turn, with these retry rules.
fn with_retries(rules: &str, endpoints: &[&Endpoint]) -> Weir {
    let retries = format!("retries = {{ {FREE}, {rules} }}");
    Weir::with(&retries, endpoints)
}

fn good() -> Endpoint {
    Endpoint::answering(|_| ok("good"))
}

/// An endpoint that answers each request with this status and keeps its connections open.
fn answers(status: u16) -> Endpoint {
    Endpoint::answering(move |_| {
        format!("HTTP/1.1 {status} Sorry\r\nContent-Length: 5\r\n\r\nsorry")
    })
}

/// An endpoint that sends these bytes for each request and closes.
fn sends(bytes: &'static str) -> Endpoint {
    Endpoint::script(move |conn| {
        if conn.next_request().is_some() {
            let _ = conn.try_send(bytes);
        }
    })
}

/// An endpoint that resets each connection when it has a request.
fn resets() -> Endpoint {
    Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.reset_now();
        }
    })
}

/// An endpoint that reads and never answers.
fn hangs() -> Endpoint {
    Endpoint::script(|conn| drop(conn.rest()))
}

/// The number of answers with each status that `ask` gets in `count` tries.
fn count_of(count: usize, status: u16, ask: impl Fn() -> Message) -> usize {
    (0..count).filter(|_| ask().status() == status).count()
}

#[test]
fn a_503_goes_to_the_next_endpoint() {
    let (bad, good) = (answers(503), good());
    let weir = with_retries("count = 1", &[&bad, &good]);
    for _ in 0..12 {
        assert_eq!(weir.ask(get("/")).text(), "good");
    }
    let retried = bad.requests().len();
    assert!(retried > 0);
    assert_eq!(
        weir.metric("weir_upstream_retries_total{upstream=\"up\"}"),
        retried as f64
    );
    assert!(
        bad.connections() <= 2,
        "the connection stays open when the whole answer has arrived: {}",
        bad.connections()
    );
    let posts = count_of(12, 503, || weir.ask(post("/", "once")));
    assert!(posts > 0, "a POST is sent once");
    assert_eq!(bad.requests().len() - retried, posts);
}

#[test]
fn without_another_endpoint_the_client_gets_the_answer() {
    let (one, two) = (answers(503), answers(503));
    let weir = with_retries("count = 5", &[&one, &two]);
    let response = weir.ask(get("/"));
    assert_eq!(
        (response.status(), response.text().as_str()),
        (503, "sorry")
    );
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
    assert_eq!(weir.entry("/").number("attempts"), 2.0);
}

#[test]
fn only_statuses_of_the_rules_are_retried() {
    for (rules, status, is_retried) in [
        ("count = 1", 500, false),
        ("count = 1", 502, false),
        ("count = 1, on = \"5xx\"", 500, true),
        ("count = 1, on = \"429,500\"", 429, true),
        ("count = 1, on = \"429,500\"", 503, false),
        ("count = 0", 503, false),
        ("count = \"off\"", 503, false),
    ] {
        let (bad, good) = (answers(status), good());
        let weir = with_retries(rules, &[&bad, &good]);
        let failed = count_of(12, status, || weir.ask(get("/")));
        assert_eq!(failed == 0, is_retried, "{rules}, {status}");
    }
}

#[test]
fn answers_that_are_no_http_are_retried() {
    for bytes in [
        "garbage without a status line\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let (bad, good) = (sends(bytes), good());
        let weir = with_retries("count = 1", &[&bad, &good]);
        assert_eq!(count_of(12, 200, || weir.ask(get("/"))), 12, "{bytes}");
        assert!(bad.connections() > 0);
        assert!(count_of(12, 502, || weir.ask(post("/", "once"))) > 0);
        let strict = with_retries("count = 1, on = \"reset\"", &[&bad, &good]);
        assert!(count_of(12, 502, || strict.ask(get("/"))) > 0);
    }
}

#[test]
fn an_answer_that_breaks_off_in_its_head_is_retried() {
    let (bad, good) = (sends("HTTP/1.1 200 OK\r\nContent-Le"), good());
    let weir = with_retries("count = 1", &[&bad, &good]);
    assert_eq!(count_of(12, 200, || weir.ask(get("/"))), 12);
    assert!(bad.connections() > 0);
}

#[test]
fn a_reset_is_retried_unless_the_rules_leave_it_out() {
    let (bad, good) = (resets(), good());
    let weir = with_retries("count = 1", &[&bad, &good]);
    assert_eq!(count_of(12, 200, || weir.ask(get("/"))), 12);
    let strict = with_retries("count = 1, on = \"503\"", &[&bad, &good]);
    assert!(count_of(12, 502, || strict.ask(get("/"))) > 0);
}

#[test]
fn a_silent_endpoint_costs_a_retry_only_with_timeout() {
    let (bad, good) = (hangs(), good());
    let config = |on: &str| {
        format!(
            "timeouts = {{ first_byte = \"200ms\" }}\nretries = {{ {FREE}, count = 1, on = \"{on}\" }}\n{}",
            route_to(&[&bad, &good])
        )
    };
    let weir = Weir::start(&config("timeout"));
    assert_eq!(count_of(6, 200, || weir.ask(get("/"))), 6);
    weir.reload(&config("connect,reset,invalid,5xx"));
    assert!(count_of(6, 504, || weir.ask(get("/"))) > 0);
}

#[test]
fn methods_of_the_rules_are_repeated() {
    let (bad, good) = (resets(), good());
    let weir = with_retries("count = 1, methods = [\"POST\"]", &[&bad, &good]);
    assert_eq!(count_of(12, 200, || weir.ask(post("/", "again"))), 12);
    assert_eq!(good.requests().pop().unwrap().text(), "again");
    assert!(count_of(12, 502, || weir.ask(get("/"))) > 0);
}

#[test]
fn an_unavailable_grpc_service_counts_as_503() {
    let call =
        post("/a.B/C", "x").replace("\r\n\r\n", "\r\nContent-Type: application/grpc\r\n\r\n");
    for (status, is_retried) in [(14, true), (13, false)] {
        let bad = Endpoint::answering(move |_| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: {status}\r\n\
                 Content-Length: 0\r\n\r\n"
            )
        });
        let good = good();
        let weir = with_retries("count = 1, methods = \"POST\"", &[&bad, &good]);
        let answered = (0..12).filter(|_| weir.ask(&call).text() == "good").count();
        assert_eq!(answered == 12, is_retried, "grpc-status {status}");
    }
}

/// Three endpoints of which one always answers 503: retries stay within the budget.
#[test]
fn retries_of_answers_have_a_budget() {
    let (bad, other) = (answers(503), answers(503));
    let weir = Weir::with(
        "cores = 1\nretries = { count = 3, budget = \"20%\", budget_min = 3 }",
        &[&bad, &other],
    );
    for _ in 0..100 {
        assert_eq!(weir.ask(get("/")).status(), 503);
    }
    let sent = bad.requests().len() + other.requests().len();
    assert!((103..=120).contains(&sent), "{sent} requests were sent");
}

#[test]
fn retries_leave_an_endpoint_alone_that_asks_for_it() {
    let (asked, answered) = (
        Endpoint::answering(
            |_| "HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n",
        ),
        Endpoint::answering(|_| "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
    );
    // Nearly all requests go to the second endpoint first.
    let (one, two) = (&asked.name, &answered.name);
    let weir = Weir::start(&format!(
        "cores = 1\nretries = {{ {FREE}, count = 5 }}\n[upstream.up]\nbalance = \"round_robin\"\n\
         eject = \"off\"\nservers = [{{ address = \"{one}\", weight = 1 }}, {{ address = \"{two}\", weight = 20 }}]\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    ));
    while asked.requests().is_empty() {
        weir.ask(get("/"));
    }
    let (first, second) = (asked.requests().len(), answered.requests().len());
    for _ in 0..10 {
        assert_eq!(weir.ask(get("/")).status(), 503);
    }
    assert_eq!(answered.requests().len() - second, 10);
    let more = asked.requests().len() - first;
    assert!(more <= 1, "{more} retries went to the one that has asked");
}

/// An upstream whose endpoint answers with the status that the test sets.
fn switchable(status: &Arc<AtomicU16>) -> Endpoint {
    let status = status.clone();
    Endpoint::answering(move |_| {
        let status = status.load(SeqCst);
        format!("HTTP/1.1 {status} Set\r\nContent-Length: 0\r\n\r\n")
    })
}

/// A Weir on two cores with these keys of its upstream.
fn with_upstream(keys: &str, endpoint: &Endpoint) -> Weir {
    let name = &endpoint.name;
    Weir::start(&format!(
        "cores = 2\n[upstream.up]\nservers = [\"{name}\"]\n{keys}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    ))
}

#[test]
fn a_breaker_opens_and_closes() {
    let status = Arc::new(AtomicU16::new(500));
    let endpoint = switchable(&status);
    let weir = with_upstream(
        "breaker = { min_requests = 6, open_for = \"300ms\" }",
        &endpoint,
    );
    let open = || weir.metric("weir_upstream_breaker_open{upstream=\"up\"}");
    assert_eq!(open(), 0.0);
    // Clients on connections of their own, so that both cores serve some.
    for _ in 0..6 {
        assert_eq!(weir.ask(get("/")).status(), 500);
    }
    let refused = weir.ask(get("/refused"));
    refused.expect_refusal(503, "circuit_open", "destination_unavailable");
    assert_eq!(refused.field("Retry-After"), Some("1"));
    assert_eq!(weir.entry("/refused").number("attempts"), 0.0);
    assert_eq!(open(), 1.0);
    weir.wait_for("the circuit of upstream up has opened");
    status.store(200, SeqCst);
    eventually("the circuit closes", || {
        weir.ask(get("/"));
        (open() == 0.0).then_some(())
    });
    weir.wait_for("the circuit of upstream up has closed");
    for _ in 0..10 {
        assert_eq!(weir.ask(get("/")).status(), 200);
    }
}

#[test]
fn requests_at_once_are_bounded_over_all_cores() {
    let hanging = hangs();
    let weir = with_upstream("breaker = { requests = 3 }", &hanging);
    let clients: Vec<_> = (0..3).map(|_| weir.connect()).collect();
    for client in &clients {
        client.send(get("/hangs"));
    }
    eventually("three requests", || {
        (hanging.connections() == 3).then_some(())
    });
    for _ in 0..8 {
        weir.ask(get("/"))
            .expect_refusal(503, "circuit_open", "destination_unavailable");
    }
    assert_eq!(hanging.connections(), 3);
    let open = weir.metric("weir_upstream_breaker_open{upstream=\"up\"}");
    assert_eq!(open, 0.0, "who is within the limit is served");
    clients
        .into_iter()
        .for_each(|mut client| client.reset_now());
    eventually("places are free again", || {
        weir.connect().send(get("/"));
        (hanging.connections() > 3).then_some(())
    });
}

#[test]
fn adaptive_concurrency_refuses_more_than_the_upstream_serves() {
    let hanging = hangs();
    let weir = with_upstream("adaptive_concurrency = true", &hanging);
    // No answer has come, so each of the two cores has its first limit, 64.
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let client = weir.connect();
            client.send(get("/"));
            client
        })
        .collect();
    let refused = "weir_upstream_reasons_total{upstream=\"up\",reason=\"upstream_overloaded\"}";
    eventually("the rest is refused", || {
        (weir.metric(refused) >= 72.0).then_some(())
    });
    assert!(hanging.connections() <= 128);
    drop(clients);
}

#[test]
fn a_late_answer_is_hedged_at_another_endpoint() {
    let (slow, good) = (hangs(), good());
    let weir = with_retries("count = 1, hedge = \"100ms\"", &[&slow, &good]);
    for _ in 0..8 {
        assert_eq!(weir.ask(get("/")).text(), "good");
    }
    let count = |name: &str| weir.metric(&format!("weir_upstream_{name}{{upstream=\"up\"}}"));
    let hedged = slow.connections() as f64;
    assert!(hedged > 0.0);
    assert_eq!(count("hedges_total"), hedged);
    assert_eq!(count("hedges_won_total"), hedged);
    assert_eq!(count("retries_total"), 0.0);
    let entry = weir.entry_where("a hedged request", |entry| entry.number("attempts") == 2.0);
    assert_eq!(entry.number("status"), 200.0);
    assert_eq!(entry.text("endpoint"), good.name);
    // Weir has closed the connections of the attempts that lost.
    let open = format!(
        "weir_endpoint_connections_open{{upstream=\"up\",endpoint=\"{}\"}}",
        slow.name
    );
    eventually("they close", || (weir.metric(&open) == 0.0).then_some(()));
}

#[test]
fn hedges_have_a_budget() {
    let (one, two) = (hangs(), hangs());
    let weir = Weir::with(
        "cores = 1\ntimeouts = { first_byte = \"300ms\" }\n\
         retries = { count = 1, hedge = \"20ms\", budget = \"0%\", budget_min = 2 }",
        &[&one, &two],
    );
    for _ in 0..5 {
        assert_eq!(weir.ask(get("/")).status(), 504);
    }
    assert_eq!(one.connections() + two.connections(), 5 + 2);
}

#[test]
fn a_percentile_is_learned_before_it_hedges() {
    let slow_once = Arc::new(AtomicU16::new(1));
    let endpoint = || {
        let slow_once = slow_once.clone();
        Endpoint::answering(move |request| {
            if request.target() == "/slow" && slow_once.swap(0, SeqCst) == 1 {
                std::thread::sleep(std::time::Duration::from_secs(5));
            }
            ok("answer")
        })
    };
    let (one, two) = (endpoint(), endpoint());
    let weir = Weir::with(
        &format!("cores = 1\nretries = {{ {FREE}, count = 1, hedge = \"p95\" }}"),
        &[&one, &two],
    );
    for _ in 0..60 {
        assert_eq!(weir.ask(get("/")).text(), "answer");
    }
    assert_eq!(weir.ask(get("/slow")).text(), "answer");
    let entry = weir.entry("/slow");
    assert_eq!(entry.number("attempts"), 2.0);
    assert!(entry.number("total_ms") < 4_000.0);
}
