//! Endpoints that misbehave, and which of their failures a retry saves.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

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
