//! Which attempts Weir repeats, at which endpoints, and which never; and idle connections.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;

use e2e::*;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

/// A PUT, which Weir may repeat (RFC 9110, section 9.2.2).
fn put(path: &str, body: &str) -> String {
    post(path, body).replacen("POST", "PUT", 1)
}

/// An address that refuses connections. It stays bound, so that no other test gets its port.
fn refusing_address() -> String {
    let (socket, address) = bound_socket();
    let _ = socket.into_raw_fd();
    address
}

/// A bound socket that does not listen yet.
fn bound_socket() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address.to_string())
}

/// A Weir that routes everything to these servers.
fn to_servers(keys: &str, servers: &[&str]) -> Weir {
    Weir::start(&format!(
        "{keys}\n[upstream.up]\nservers = {servers:?}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    ))
}

/// An endpoint that reads a whole request and closes without an answer.
fn unanswering_endpoint() -> Endpoint {
    Endpoint::script(|conn| drop(conn.next_request()))
}

/// The number of open connections to the endpoint.
fn open_to(weir: &Weir, endpoint: &Endpoint) -> f64 {
    let name = &endpoint.name;
    weir.metric(&format!(
        "weir_endpoint_connections_open{{upstream=\"up\",endpoint=\"{name}\"}}"
    ))
}

#[test]
fn the_next_endpoint_is_asked_when_one_refuses() {
    let endpoint = Endpoint::answering(|request| ok(&request.text()));
    let weir = to_servers(
        "",
        &[&refusing_address(), &endpoint.name, &refusing_address()],
    );
    for n in 0..6 {
        // A refusing endpoint received nothing, so a POST may go to the next one.
        assert_eq!(weir.ask(get(&format!("/get/{n}"))).status(), 200);
        assert_eq!(weir.ask(post("/post", "body")).text(), "body");
    }
    assert_eq!(endpoint.requests().len(), 12);
}

#[test]
fn failures_and_first_bytes_are_counted_by_endpoint() {
    let (good, dead, closing) = (
        Endpoint::answering(|_| ok("hello")),
        refusing_address(),
        unanswering_endpoint(),
    );
    let weir = to_servers(
        "retries = { count = 4, budget_min = 100 }",
        &[&good.name, &dead, &closing.name],
    );
    for n in 0..6 {
        assert_eq!(weir.ask(get(&format!("/{n}"))).status(), 200);
    }
    let count = |family: &str, endpoint: &str, more: &str| {
        let labels = format!("upstream=\"up\",endpoint=\"{endpoint}\"{more}");
        weir.metric(&format!("weir_endpoint_{family}{{{labels}}}"))
    };
    let failures = |endpoint: &str, reason: &str| {
        let reason = format!(",reason=\"{reason}\"");
        count("failures_total", endpoint, &reason)
    };
    eventually("six answers", || {
        (count("first_byte_seconds_count", &good.name, "") == 6.0).then_some(())
    });
    assert!(failures(&dead, "connect_failed") >= 1.0);
    assert!(failures(&closing.name, "upstream_closed") >= 1.0);
    assert_eq!(count("first_byte_seconds_count", &dead, ""), 0.0);
    let page = weir.admin("/metrics").text();
    for reason in ["connect_failed", "upstream_closed", "response_truncated"] {
        let zero = format!("endpoint=\"{}\",reason=\"{reason}\"}} 0", good.name);
        assert!(
            page.contains(&zero),
            "{reason} at the endpoint that answers"
        );
    }
}

#[test]
fn when_all_refuse_it_is_502() {
    let weir = to_servers("", &[&refusing_address(), &refusing_address()]);
    weir.ask(get("/"))
        .expect_refusal(502, "connect_failed", "connection_refused");
    let entry = weir.entry("/");
    assert_eq!(
        (entry.text("reason").as_str(), entry.number("attempts")),
        ("connect_failed", 2.0)
    );
}

#[test]
fn a_get_without_an_answer_is_repeated_at_another_endpoint() {
    let (first, second) = (
        unanswering_endpoint(),
        Endpoint::answering(|_| ok("from the other")),
    );
    let weir = Weir::with(
        "retries = { count = 1, budget_min = 100 }",
        &[&first, &second],
    );
    for _ in 0..4 {
        assert_eq!(weir.ask(get("/")).text(), "from the other");
    }
    assert!(first.connections() > 0);
    assert_eq!(
        weir.metric("weir_upstream_retries_total{upstream=\"up\"}"),
        first.connections() as f64
    );
}

#[test]
fn a_request_with_a_body_is_repeated_whole() {
    let (first, second) = (
        unanswering_endpoint(),
        Endpoint::answering(|request| ok(&request.text())),
    );
    let weir = Weir::with(
        "retries = { count = 1, budget_min = 100 }",
        &[&first, &second],
    );
    let body = "0123456789".repeat(3_000);
    for _ in 0..4 {
        assert_eq!(weir.ask(put("/", &body)).text(), body);
        let chunked = "PUT / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-T: 1\r\n\r\n";
        assert_eq!(weir.ask(chunked).text(), "body");
        assert_eq!(second.requests().last().unwrap().trailer("X-T"), Some("1"));
    }
    assert!(first.connections() > 0);
}

#[test]
fn a_body_too_large_to_be_kept_is_not_repeated() {
    let (first, second) = (unanswering_endpoint(), unanswering_endpoint());
    let weir = Weir::to(&[&first, &second]);
    assert_eq!(weir.ask(put("/", &"x".repeat(100_000))).status(), 502);
    assert_eq!(first.connections() + second.connections(), 1);
}

#[test]
fn a_post_is_never_sent_twice() {
    let (first, second) = (unanswering_endpoint(), unanswering_endpoint());
    let weir = Weir::with("retries = 5", &[&first, &second]);
    for n in 1..5 {
        let response = weir.ask(post("/", "once"));
        assert_eq!(response.status(), 502);
        assert!(
            response.text().contains("\"upstream_closed\""),
            "{}",
            response.text()
        );
        assert_eq!(first.connections() + second.connections(), n);
    }
}

#[test]
fn nothing_is_repeated_once_an_answer_has_begun() {
    let first = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        }
    });
    let second = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
        }
    });
    let weir = Weir::to(&[&first, &second]);
    let mut client = weir.connect();
    client.send(get("/"));
    client.head();
    assert_eq!(client.rest().0, b"part");
    assert_eq!(first.connections() + second.connections(), 1);
}

#[test]
fn an_error_status_of_an_endpoint_is_not_retried() {
    let endpoint = Endpoint::answering(|_| "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    let weir = Weir::to(&[&endpoint]);
    let response = weir.ask(get("/"));
    assert_eq!(
        (response.start.as_str(), response.text().as_str()),
        ("HTTP/1.1 503 Busy", "busy")
    );
    assert_eq!(endpoint.requests().len(), 1);
}

#[test]
fn retries_may_be_off() {
    for retries in ["0", "\"off\"", "{ count = \"off\" }"] {
        let endpoint = unanswering_endpoint();
        let weir = Weir::with(&format!("retries = {retries}"), &[&endpoint]);
        assert_eq!(weir.ask(get("/")).status(), 502);
        assert_eq!(endpoint.connections(), 1, "{retries}");
    }
}

#[test]
fn three_connections_are_tried_and_no_more() {
    let nobody: Vec<_> = (0..5).map(|_| refusing_address()).collect();
    let servers: Vec<_> = nobody.iter().map(String::as_str).collect();
    for (retries, attempts) in [("0", 3.0), ("1", 3.0), ("10", 3.0), ("\"off\"", 1.0)] {
        let keys = format!("retries = {{ count = {retries}, budget = \"1%\", budget_min = 0 }}");
        let weir = to_servers(&keys, &servers);
        weir.ask(post("/", "body"))
            .expect_refusal(502, "connect_failed", "connection_refused");
        assert_eq!(weir.entry("/").number("attempts"), attempts, "{keys}");
    }
    // A single endpoint is tried `count` more times.
    for (retries, attempts) in [("0", 1.0), ("1", 2.0), ("10", 3.0)] {
        let keys = format!("retries = {{ count = {retries}, backoff = \"1ms\" }}");
        let weir = to_servers(&keys, &servers[..1]);
        assert_eq!(weir.ask(get("/")).status(), 502);
        assert_eq!(weir.entry("/").number("attempts"), attempts, "{keys}");
    }
}

/// The count and the budget of retries do not limit failed connects, and the body arrives complete.
#[test]
fn a_connection_that_cannot_be_made_fails_no_request_without_retries() {
    let endpoint = Endpoint::answering(|request| ok(&request.text()));
    let weir = to_servers(
        "retries = 0",
        &[&refusing_address(), &refusing_address(), &endpoint.name],
    );
    let body = "0123456789".repeat(20_000);
    for _ in 0..6 {
        assert_eq!(weir.ask(post("/", &body)).text(), body);
    }
    // A route may enable failover that its upstream disables.
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}, {:?}]\nretries = \"off\"\n\
         [[route]]\nmatch = \"/off\"\nto = \"up\"\n\
         [[route]]\nmatch = \"/on\"\nto = \"up\"\nretries = 0\n",
        refusing_address(),
        endpoint.name
    ));
    let mut statuses: Vec<_> = (0..2).map(|_| weir.ask(get("/off")).status()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    for _ in 0..4 {
        assert_eq!(weir.ask(get("/on")).status(), 200);
    }
}

#[test]
fn retries_may_be_many() {
    let endpoint = Endpoint::numbered(|conn, number| {
        if conn.next_request().is_some() && number == 3 {
            conn.send(ok("at last"));
        }
    });
    let weir = Weir::with("retries = { count = 3, backoff = \"1ms\" }", &[&endpoint]);
    assert_eq!(weir.ask(get("/")).text(), "at last");
    assert_eq!(weir.entry("/").number("attempts"), 4.0);
}

#[test]
fn retries_have_a_budget() {
    let endpoint = unanswering_endpoint();
    let weir = Weir::with(
        "retries = { count = 1, budget = \"10%\", budget_min = 2, backoff = \"1ms\" }",
        &[&endpoint],
    );
    for _ in 0..15 {
        assert_eq!(weir.ask(get("/")).status(), 502);
    }
    assert_eq!(
        endpoint.connections(),
        15 + 2,
        "the floor, as a tenth of 15 is less"
    );
    for _ in 0..20 {
        weir.ask(get("/"));
    }
    let retries = endpoint.connections() - 35;
    assert!(retries <= 3, "a tenth of 35 requests, not {retries}");
}

#[test]
fn an_attempt_may_be_bounded_by_itself() {
    let silent = Endpoint::script(|conn| drop(conn.rest()));
    let endpoint = Endpoint::answering(|_| ok("quick"));
    let weir = Weir::with(
        "retries = { count = 1, budget_min = 100, per_try = \"500ms\" }",
        &[&silent, &endpoint],
    );
    for _ in 0..4 {
        assert_eq!(weir.ask(get("/")).text(), "quick");
    }
    assert!(silent.connections() > 0);
    // Weir cannot know whether the endpoint processed a POST.
    drop(weir);
    let weir = Weir::with(
        "retries = { count = 1, budget_min = 100, per_try = \"500ms\" }",
        &[&silent],
    );
    assert_eq!(weir.ask(post("/", "x")).status(), 504);
}

#[test]
fn a_closed_idle_connection_is_noticed_and_never_picked() {
    let endpoint = Endpoint::script(|conn| {
        // The endpoint closes after one answer without announcing it.
        if let Some(request) = conn.next_request() {
            conn.send(ok(&request.text()));
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for n in 1..6 {
        // A POST could not be repeated.
        client.send(post("/", "precious"));
        assert_eq!(client.response().text(), "precious");
        eventually("the end of the connection", || {
            (open_to(&weir, &endpoint) == 0.0).then_some(())
        });
        assert_eq!(endpoint.connections(), n);
    }
}

#[test]
fn an_idle_connection_that_speaks_unasked_is_dropped() {
    let endpoint = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send(ok("first"));
            conn.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
            conn.expect_end();
        }
    });
    let weir = Weir::to(&[&endpoint]);
    for _ in 0..3 {
        assert_eq!(weir.ask(get("/")).text(), "first");
        eventually("the end of the connection", || {
            (open_to(&weir, &endpoint) == 0.0).then_some(())
        });
    }
}

/// An endpoint that resets each connection on its second request, like an idle connection that closes while a request
/// is on its way.
fn one_per_connection() -> Endpoint {
    Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send(ok("hello"));
            if conn.next_request().is_some() {
                conn.reset_now();
            }
        }
    })
}

#[test]
fn a_stale_connection_never_loses_an_idempotent_request() {
    let (first, second) = (one_per_connection(), one_per_connection());
    // It costs no retry budget, because the endpoint has not failed.
    let weir = Weir::with(
        "retries = { count = 1, budget = \"1%\", budget_min = 0 }",
        &[&first, &second],
    );
    let mut client = weir.connect();
    for n in 0..100 {
        client.send(if n % 2 == 0 {
            get("/")
        } else {
            put("/", "again")
        });
        assert_eq!(client.response().status(), 200, "request {n}");
    }
}

#[test]
fn a_stale_connection_fails_a_post_rather_than_send_it_twice() {
    let endpoint = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send(ok("hello"));
            // This time the endpoint has received the request.
            conn.request();
            conn.reset_now();
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(post("/", "one"));
    assert_eq!(client.response().status(), 200);
    client.send(post("/", "two"));
    assert_eq!(client.response().status(), 502);
    assert_eq!(endpoint.connections(), 1);
}

#[test]
fn connection_close_of_an_endpoint_is_obeyed() {
    let endpoint = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
            conn.expect_end();
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    for n in 1..4 {
        client.send(get("/"));
        let response = client.response();
        assert_eq!(
            (response.text().as_str(), response.field("Connection")),
            ("hi", None),
            "it is of the other hop"
        );
        assert_eq!(endpoint.connections(), n);
    }
}

#[test]
fn requests_go_round_by_weight() {
    let endpoints: Vec<_> = ["a", "b", "c"]
        .map(|name| Endpoint::answering(move |_| ok(name)))
        .into();
    let weir = Weir::start(&format!(
        "[upstream.up]\nbalance = \"round_robin\"\nservers = [{:?}, {{ address = {:?}, weight = 2 }}, {:?}]\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoints[0].name, endpoints[1].name, endpoints[2].name,
    ));
    let mut client = weir.connect();
    let turns: String = (0..40)
        .map(|_| {
            client.send(get("/"));
            client.response().text()
        })
        .collect();
    // Smooth: every four consecutive requests have the shares of all.
    for round in turns.as_bytes().windows(4) {
        let shares = [b'a', b'b', b'c'].map(|name| round.iter().filter(|&&at| at == name).count());
        assert_eq!(shares, [1, 2, 1], "{turns}");
    }
}

#[test]
fn idle_connections_are_bounded_in_number_and_time() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\npool = {{ idle_per_core = 0 }}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    for _ in 0..3 {
        weir.ask(get("/"));
    }
    assert_eq!(endpoint.connections(), 3);
    drop(weir);
    let weir = Weir::with("timeouts = { upstream_idle = \"100ms\" }", &[&endpoint]);
    weir.ask(get("/"));
    eventually("the end of the idle connection", || {
        (open_to(&weir, &endpoint) == 0.0).then_some(())
    });
}

#[test]
fn connections_to_an_endpoint_are_bounded() {
    let (begun, has_begun) = channel();
    let endpoint = Endpoint::script(move |conn| {
        if conn.next_request().is_some() {
            begun.send(()).unwrap();
            conn.expect_end();
        }
    });
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{:?}]\npool = {{ connections = 2, pending = 0 }}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let mut waiting: Vec<_> = (0..2).map(|_| weir.connect()).collect();
    for client in &mut waiting {
        client.send(get("/"));
        has_begun.recv_timeout(DEADLINE).unwrap();
    }
    weir.ask(get("/"))
        .expect_refusal(503, "upstream_limit", "connection_limit_reached");
    // A client that leaves makes room.
    waiting.remove(1).reset_now();
    eventually("room", || (open_to(&weir, &endpoint) == 1.0).then_some(()));
    waiting.push(weir.connect());
    waiting[1].send(get("/"));
    has_begun.recv_timeout(DEADLINE).unwrap();
}

/// Requests on all cores: the endpoint never has more connections than the limit.
#[test]
fn connections_to_an_endpoint_are_bounded_over_all_cores() {
    for driver in ["auto", "monoio"] {
        let now = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let (at_once, seen) = (now.clone(), most.clone());
        let endpoint = Endpoint::script(move |conn| {
            while conn.next_request().is_some() {
                seen.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::yield_now();
                at_once.fetch_sub(1, SeqCst);
                if conn.try_send(ok("hello")).is_err() {
                    return;
                }
            }
        });
        let weir = Weir::start(&format!(
            "cores = 4\ndriver = {driver:?}\n[upstream.up]\nservers = [{:?}]\n\
             pool = {{ connections = 3 }}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n",
            endpoint.name
        ));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = weir.connect();
                    for _ in 0..50 {
                        client.send(get("/"));
                        assert_eq!(client.response().status(), 200);
                    }
                });
            }
        });
        let most = most.load(SeqCst);
        assert!((1..=3).contains(&most), "{most} at once");
        assert!(weir.metric("weir_upstream_queued_total{upstream=\"up\"}") > 0.0);
    }
}

#[test]
fn an_upload_goes_on_at_the_next_endpoint() {
    let (begun, has_begun) = channel();
    let endpoint = Endpoint::numbered(move |conn, number| {
        conn.head();
        conn.expect("first ");
        begun.send(()).unwrap();
        if number > 0 {
            conn.expect("second");
            conn.send(ok("whole"));
            conn.expect_end();
        }
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("PUT / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 12\r\n\r\nfirst ");
    // The first endpoint dies half way. Weir sends the next one what it had and continues with the rest.
    for _ in 0..2 {
        has_begun.recv_timeout(DEADLINE).unwrap();
    }
    client.send("second");
    assert_eq!(client.response().text(), "whole");
}

#[test]
fn a_close_that_has_already_arrived_fails_no_post() {
    let endpoint = Endpoint::script(|conn| {
        if let Some(request) = conn.next_request() {
            conn.send_last(ok(request.target()));
        }
    });
    let weir = Weir::to(&[&endpoint]);
    for _ in 0..20 {
        let mut client = weir.connect();
        client.send(get("/fin") + &post("/post", ""));
        assert_eq!(client.response().text(), "/fin");
        assert_eq!(client.response().text(), "/post");
    }
}

/// An endpoint is down and later recovers: one log line each, however many requests and cores notice.
#[test]
fn failure_and_recovery_of_an_endpoint_are_logged_once() {
    let (socket, address) = bound_socket();
    let weir = Weir::start(&format!(
        "cores = 2\n[upstream.up]\nservers = [{address:?}]\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    ));
    for _ in 0..20 {
        assert_eq!(weir.ask(get("/")).status(), 502);
    }
    let cause = weir.wait_for(&format!("endpoint {address} of upstream up fails: "));
    assert!(
        cause.starts_with("connect_failed: Connection refused (os error 111) ("),
        "{cause}"
    );
    socket.listen(16).unwrap();
    let listener = TcpListener::from(socket);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut conn = Conn::new(socket.unwrap().into());
            while conn.next_request().is_some() && conn.try_send(ok("hello")).is_ok() {}
        }
    });
    assert_eq!(weir.ask(get("/")).status(), 200);
    let again = weir.wait_for(&format!(
        "endpoint {address} of upstream up answers again after "
    ));
    assert!(again.ends_with("1 answered since)"), "{again}");
    weir.signal(Signal::TERM);
    let all = weir.stderr.to_end();
    let said = |text: &str| all.iter().filter(|line| line.contains(text)).count();
    assert_eq!((said(" fails: "), said(" answers again ")), (1, 1));
}

#[test]
fn a_reset_is_logged_with_the_systems_error() {
    let endpoint = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.reset_now();
        }
    });
    let weir = Weir::with("retries = \"off\"", &[&endpoint]);
    assert_eq!(weir.ask(post("/", "x")).status(), 502);
    let cause = weir.wait_for(&format!(
        "endpoint {} of upstream up fails: ",
        endpoint.name
    ));
    assert!(
        cause.starts_with("upstream_closed: Connection reset by peer (os error 104)"),
        "{cause}"
    );
}
