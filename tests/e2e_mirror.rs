//! Copies of requests for another upstream.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use e2e::*;

fn named(name: &'static str) -> Endpoint {
    Endpoint::answering(move |_| ok(name))
}

/// A file with a route to `app` that has these keys, and the upstream `shadow`.
fn file(keys: &str, app: &Endpoint, shadow: &str) -> String {
    let app = &app.name;
    format!(
        "[upstream]\napp = [\"{app}\"]\nshadow = [\"{shadow}\"]\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n{keys}\n"
    )
}

/// The requests of an endpoint, once it has so many.
fn requests(endpoint: &Endpoint, count: usize) -> Vec<Message> {
    eventually("copies", || {
        let seen = endpoint.requests();
        (seen.len() >= count).then_some(seen)
    })
}

fn sent(weir: &Weir) -> f64 {
    weir.metric("weir_upstream_mirrored_total{upstream=\"shadow\"}")
}

fn dropped(weir: &Weir, cause: &str) -> f64 {
    let name = "weir_upstream_mirror_dropped_total";
    weir.metric(&format!("{name}{{upstream=\"shadow\",cause=\"{cause}\"}}"))
}

/// The metrics of copies count them once they are sent, which a client does not wait for.
fn eventually_dropped(weir: &Weir, cause: &str, count: f64) {
    eventually(cause, || (dropped(weir, cause) == count).then_some(()));
}

#[test]
fn a_copy_has_what_the_endpoint_gets() {
    let (app, shadow) = (named("app"), named("shadow"));
    let keys = "mirror = \"shadow\"\nstrip = \"/v1\"\nheaders = { request = { set = { X-Set = \"s\" }, remove = [\"X-Gone\"] } }";
    let config = file(keys, &app, &shadow.name).replace("\"/*\"", "\"/v1/*\"");
    let weir = Weir::start(&config);
    let request = "GET /v1/a%20b?c=d HTTP/1.1\r\nHost: weir.test:81\r\nX-Gone: 1\r\nX-One: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
                   X-Weir-Mirror: forged\r\nCookie: a=b\r\n\r\n";
    let answer = weir.ask(request);
    assert_eq!((answer.status(), answer.text()), (200, "app".to_owned()));
    let original = app.only_request();
    let copy = requests(&shadow, 1).remove(0);
    assert_eq!(copy.target(), "/a%20b?c=d");
    for name in [
        "host",
        "x-set",
        "x-one",
        "cookie",
        "via",
        "x-request-id",
        "x-forwarded-for",
        "forwarded",
        "x-hop",
        "x-gone",
    ] {
        assert_eq!(copy.all(name), original.all(name), "{name}");
    }
    assert_eq!(
        (copy.field("x-set"), copy.field("x-gone")),
        (Some("s"), None)
    );
    assert_eq!(copy.all("x-weir-mirror"), ["1"]);
    assert_eq!(original.all("x-weir-mirror"), ["forged"]);
    // The upstream's metrics count the copy, the log does not have it.
    eventually("the copy's end", || {
        let name = "weir_upstream_exchanges_total{upstream=\"shadow\",class=\"2xx\"}";
        (weir.metric(name) == 1.0 && sent(&weir) == 1.0).then_some(())
    });
    let entry = weir.entry("/v1/a%20b?c=d");
    assert_eq!(entry.text("upstream"), "app");
}

#[test]
fn a_share_of_the_requests_is_copied() {
    let (app, shadow) = (named("app"), named("shadow"));
    for (share, least, most) in [("0%", 0, 0), ("25%", 60, 140), ("100%", 400, 400)] {
        let keys = format!("mirror = \"shadow, {share}\"");
        let weir = Weir::start(&file(&keys, &app, &shadow.name));
        let mut client = weir.connect();
        for _ in 0..400 {
            client.send(get("/"));
            assert_eq!(client.response().status(), 200);
        }
        let copied = sent(&weir);
        assert!(
            (f64::from(least)..=f64::from(most)).contains(&copied),
            "{share}: {copied}"
        );
    }
}

#[test]
fn bodies_are_copied_up_to_their_limit_and_never_in_part() {
    let (app, shadow) = (named("app"), named("shadow"));
    let keys = "mirror = { to = \"shadow\", body = \"10B\" }";
    let weir = Weir::start(&file(keys, &app, &shadow.name));
    assert_eq!(weir.ask(post("/fits", "0123456789")).text(), "app");
    let copy = requests(&shadow, 1).remove(0);
    assert_eq!(
        (copy.text(), copy.field("content-length")),
        ("0123456789".to_owned(), Some("10"))
    );
    let chunked = |body: &str| {
        format!(
            "POST /chunked HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    assert_eq!(weir.ask(chunked("5678")).text(), "app");
    assert_eq!(requests(&shadow, 2).remove(1).text(), "012345678");
    assert_eq!(weir.ask(post("/large", "0123456789a")).text(), "app");
    assert_eq!(weir.ask(chunked("56789a")).text(), "app");
    eventually_dropped(&weir, "body_too_large", 2.0);
    let bodies: Vec<_> = app.requests().iter().map(Message::text).collect();
    assert_eq!(bodies[2..], ["0123456789a", "0123456789a"]);
    assert_eq!(shadow.requests().len(), 2);
}

#[test]
fn large_bodies_pass_whole_and_copies_may_have_none() {
    let (app, shadow) = (named("app"), named("shadow"));
    let body = "x".repeat(1_000_000);
    for (setting, copied) in [
        ("true", None),
        ("\"1MB\"", Some(1_000_000)),
        ("false", Some(0)),
    ] {
        let keys = format!("mirror = {{ to = \"shadow\", body = {setting} }}");
        let weir = Weir::start(&file(&keys, &app, &shadow.name));
        let before = shadow.requests().len();
        assert_eq!(weir.ask(post("/", &body)).text(), "app");
        assert_eq!(app.requests().last().unwrap().body.len(), body.len());
        match copied {
            None => eventually_dropped(&weir, "body_too_large", 1.0),
            Some(length) => {
                let copy = requests(&shadow, before + 1).pop().unwrap();
                assert_eq!(copy.body.len(), length);
                assert_eq!(copy.field("content-length"), Some(&*length.to_string()));
            }
        }
    }
}

#[test]
fn a_client_that_leaves_in_its_body_leaves_no_copy() {
    let (has_head, heard) = mpsc::channel();
    let app = Endpoint::script(move |conn| {
        conn.head();
        has_head.send(()).unwrap();
        conn.rest();
    });
    let shadow = named("shadow");
    let weir = Weir::start(&file("mirror = \"shadow\"", &app, &shadow.name));
    let client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 10\r\n\r\n01234");
    heard.recv_timeout(Duration::from_secs(10)).unwrap();
    drop(client);
    eventually_dropped(&weir, "incomplete", 1.0);
    assert_eq!(shadow.connections(), 0);
}

#[test]
fn a_mirror_that_fails_or_hangs_changes_nothing_and_gets_nothing_twice() {
    let app = named("app");
    let hanging = Endpoint::script(|conn| {
        conn.head();
        conn.rest();
    });
    let failing = Endpoint::answering(|_| "HTTP/1.1 503 Sorry\r\nContent-Length: 5\r\n\r\nsorry");
    let closing = Endpoint::script(|conn| {
        conn.head();
    });
    let dead = free_address("127.0.0.1").to_string();
    let keys = "mirror = { to = \"shadow\", timeout = \"200ms\" }";
    for shadow in [&hanging.name, &failing.name, &closing.name, &dead] {
        let weir = Weir::start(&file(keys, &app, shadow));
        let began = Instant::now();
        for _ in 0..20 {
            let answer = weir.ask(get("/"));
            assert_eq!((answer.status(), answer.text()), (200, "app".to_owned()));
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{shadow}");
        eventually("all copies have ended", || {
            let name = |class| {
                format!("weir_upstream_exchanges_total{{upstream=\"shadow\",class=\"{class}\"}}")
            };
            let ended: f64 = ["5xx", "none"]
                .map(|class| weir.metric(&name(class)))
                .iter()
                .sum();
            (sent(&weir) == 20.0 && ended == 20.0).then_some(())
        });
        assert_eq!(
            weir.metric("weir_upstream_retries_total{upstream=\"shadow\"}"),
            0.0
        );
    }
    assert_eq!(failing.requests().len(), 20);
}

#[test]
fn long_answers_are_read_to_their_end() {
    let app = named("app");
    let shadow = Endpoint::answering(|_| ok(&"x".repeat(2_000_000)));
    let weir = Weir::start(&file("mirror = \"shadow\"", &app, &shadow.name));
    for count in 1..=5 {
        assert_eq!(weir.ask(get("/")).text(), "app");
        eventually("the copy's end", || {
            let name = "weir_upstream_exchanges_total{upstream=\"shadow\",class=\"2xx\"}";
            (weir.metric(name) == f64::from(count)).then_some(())
        });
    }
    assert_eq!(shadow.connections(), 1);
}

#[test]
fn what_a_policy_refuses_and_upgrades_are_not_copied() {
    let app = Endpoint::answering(|request| match request.field("upgrade") {
        Some(_) => {
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                .to_owned()
        }
        None => ok("app"),
    });
    let shadow = named("shadow");
    let keys = "mirror = \"shadow\"\nlimit = \"1/h per header:X-Key\"";
    let weir = Weir::start(&file(keys, &app, &shadow.name));
    let keyed = get("/").replacen("\r\n\r\n", "\r\nX-Key: 1\r\n\r\n", 1);
    assert_eq!(weir.ask(&keyed).status(), 200);
    assert_eq!(weir.ask(&keyed).status(), 429);
    let mut client = weir.connect();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Key: 2\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(client.message_head().status(), 101);
    drop(client);
    assert_eq!(
        weir.ask(get("/last").replacen("\r\n\r\n", "\r\nX-Key: 3\r\n\r\n", 1))
            .status(),
        200
    );
    let targets: Vec<_> = requests(&shadow, 2)
        .iter()
        .map(|r| r.target().to_owned())
        .collect();
    assert_eq!(targets, ["/", "/last"]);
    assert_eq!(sent(&weir), 2.0);
}

#[test]
fn a_route_may_take_the_mirror_of_the_top_level_away() {
    let (app, shadow) = (named("app"), named("shadow"));
    let keys = "[[route]]\nmatch = \"/quiet\"\nto = \"app\"\nmirror = \"off\"\n[[route]]\nmatch = \"/fixed\"\nrespond = 204";
    let config = format!("mirror = \"shadow\"\n{}", file(keys, &app, &shadow.name));
    let weir = Weir::start(&config);
    for (path, status) in [("/quiet", 200), ("/fixed", 204), ("/copied", 200)] {
        assert_eq!(weir.ask(get(path)).status(), status);
    }
    assert_eq!(requests(&shadow, 1)[0].target(), "/copied");
    assert_eq!(shadow.requests().len(), 1);
}

#[test]
fn a_core_makes_so_many_copies_at_once_and_drops_the_rest() {
    let app = named("app");
    let hanging = Endpoint::script(|conn| {
        conn.head();
        conn.rest();
    });
    let config = file("mirror = \"shadow\"", &app, &hanging.name).replace(
        &format!("shadow = [\"{}\"]", hanging.name),
        &format!(
            "shadow = {{ servers = [\"{}\"], pool = {{ connections = 4, pending = 2000 }} }}",
            hanging.name
        ),
    );
    let weir = Weir::start(&format!("timeouts = {{ queue = \"1m\" }}\n{config}"));
    let mut client = weir.connect();
    for _ in 0..1_100 {
        client.send(get("/"));
        assert_eq!(client.response().text(), "app");
    }
    assert_eq!((sent(&weir), dropped(&weir, "no_room")), (1_000.0, 100.0));
    assert!(hanging.connections() <= 4);
}
