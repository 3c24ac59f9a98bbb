//! Checks of endpoints in every protocol that endpoints speak, with independent peers, and what reloads and the admin API
//! do to them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::{Conn, DEADLINE, Endpoint, Message, Weir, eventually, free_address, get, ok, run_weir};
use http::{HeaderMap, Response};
use peers::{Body, Protocol, Server, Tls, answer, routed, run};
use tokio::task::spawn_blocking;

/// Starts a Weir while the peers of this thread answer its first checks.
async fn start(config: String) -> Arc<Weir> {
    start_in(Weir::dir(), config).await
}

async fn start_in(dir: std::path::PathBuf, config: String) -> Arc<Weir> {
    let started = spawn_blocking(move || Weir::start_in(&dir, &config)).await;
    Arc::new(started.unwrap())
}

/// Waits for a line of the process log while the peers of this thread run.
async fn wait_for(weir: &Arc<Weir>, text: impl Into<String>) -> String {
    let (weir, text) = (weir.clone(), text.into());
    spawn_blocking(move || weir.wait_for(&text)).await.unwrap()
}

fn healthy(name: &str) -> String {
    format!("weir_endpoint_healthy{{upstream=\"up\",endpoint=\"{name}\"}}")
}

/// Whether the checks of an endpoint pass.
async fn is_healthy(weir: &Arc<Weir>, name: &str) -> bool {
    let (weir, name) = (weir.clone(), healthy(name));
    let value = spawn_blocking(move || weir.metric(&name)).await.unwrap();
    value == 1.0
}

async fn wait_until_healthy(weir: &Arc<Weir>, name: &str) {
    let begun = Instant::now();
    while !is_healthy(weir, name).await {
        assert!(begun.elapsed() < DEADLINE, "{name} stays down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn checks_speak_the_protocol_of_the_endpoint() {
    run(async {
        let tls = Tls::new();
        let dir = Weir::dir();
        let (_, trusts) = tls.files(&dir);
        let is_well = Rc::new(Cell::new(true));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let handler = || {
            let (is_well, seen) = (is_well.clone(), seen.clone());
            move |request: http::Request<hyper::body::Incoming>| {
                let authority = request.uri().authority().map(ToString::to_string);
                let host = request.headers().get("host");
                let host = host.map(|host| host.to_str().unwrap().to_owned());
                let named = authority.or(host).unwrap();
                seen.borrow_mut().push((request.version(), named));
                let mut response = answer("ok");
                if !is_well.get() {
                    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                }
                std::future::ready(response)
            }
        };
        let h2c = Server::start(Protocol::Http2, handler()).await;
        let https1 = Server::start_tls(Protocol::Http1, &tls, handler()).await;
        let https2 = Server::start_tls(Protocol::Http2, &tls, handler()).await;
        let names = [&h2c, &https1, &https2].map(|server| server.name.clone());
        let keys = format!(
            "health = {{ http = \"/up\", interval = \"200ms\", timeout = \"3s\" }}\n{trusts}"
        );
        let weir = start_in(dir, routed("", &names, &keys)).await;
        let names = names.map(|name| match name.contains("localhost") {
            true => format!("{name}@127.0.0.1"),
            false => name,
        });
        for name in &names {
            assert!(is_healthy(&weir, name).await, "{name}");
        }
        let versions = seen.borrow().clone();
        for (version, server) in [
            (http::Version::HTTP_2, &h2c),
            (http::Version::HTTP_11, &https1),
            (http::Version::HTTP_2, &https2),
        ] {
            let (_, host) = server.name.split_once("://").unwrap();
            let wanted = (version, host.to_owned());
            assert!(versions.contains(&wanted), "{wanted:?} in {versions:?}");
        }
        is_well.set(false);
        for name in &names {
            let line = format!("endpoint {name} of upstream up is down: status 500");
            wait_for(&weir, line).await;
        }
        is_well.set(true);
        for name in &names {
            wait_until_healthy(&weir, name).await;
        }
        for server in [&h2c, &https1, &https2] {
            // One that stays, and perhaps one of a check that a test machine was too slow for.
            assert!(server.connections() <= 2, "{}", server.connections());
        }
    });
}

#[test]
fn a_certificate_that_is_not_trusted_fails_the_check() {
    run(async {
        let (tls, other) = (Tls::new(), Tls::new());
        let dir = Weir::dir();
        let (_, trusts) = other.files(&dir);
        let server =
            Server::start_tls(Protocol::Http2, &tls, |_| std::future::ready(answer(""))).await;
        let name = server.name.clone();
        let keys =
            format!("health = {{ tcp = true, interval = \"200ms\", timeout = \"3s\" }}\n{trusts}");
        let weir = start_in(dir, routed("", &[name], &keys)).await;
        wait_for(&weir, "is down: TLS fails: ").await;
    });
}

/// What a gRPC server answers: the number in its message, or the code of an error.
#[derive(Clone, Copy)]
enum Grpc {
    Status(u8),
    Code(&'static str),
}

fn grpc_answer(answer: Grpc) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    let (bytes, code) = match answer {
        Grpc::Status(status) => (vec![0, 0, 0, 0, 2, 8, status], "0"),
        Grpc::Code(code) => (Vec::new(), code),
    };
    trailers.insert("grpc-status", code.parse().unwrap());
    let body = match bytes.is_empty() {
        true => Body::empty(),
        false => Body::trailed(Bytes::from(bytes), 3, trailers.clone()),
    };
    let is_empty = matches!(answer, Grpc::Code(_));
    let mut response = Response::new(body);
    if is_empty {
        response.headers_mut().extend(trailers);
    }
    let kind = "application/grpc".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

#[test]
fn grpc_services_are_asked_whether_they_serve() {
    run(async {
        let current = Rc::new(Cell::new(Grpc::Status(1)));
        let asked = Rc::new(RefCell::new(Vec::new()));
        let (answers, record) = (current.clone(), asked.clone());
        let server = Server::start(Protocol::Http2, move |request| {
            let (answers, record) = (answers.clone(), record.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = http_body_util::BodyExt::collect(body).await.unwrap();
                assert_eq!(head.headers["content-type"], "application/grpc");
                assert_eq!(head.headers["te"], "trailers");
                let path = head.uri.path().to_owned();
                record.borrow_mut().push((path, body.to_bytes()));
                grpc_answer(answers.get())
            }
        })
        .await;
        let name = server.name.clone();
        let keys =
            "health = { grpc = \"shop\", interval = \"200ms\", timeout = \"3s\" }\npanic = \"0%\"";
        let weir = start(routed("", std::slice::from_ref(&name), keys)).await;
        assert!(is_healthy(&weir, &name).await);
        let first = asked.borrow().first().cloned();
        let message = Bytes::from_static(b"\0\0\0\0\x06\x0a\x04shop");
        let wanted = ("/grpc.health.v1.Health/Check".to_owned(), message);
        assert_eq!(first, Some(wanted));
        for (fault, why) in [
            (Grpc::Status(2), "gRPC status NOT_SERVING"),
            (Grpc::Code("5"), "grpc-status 5 (NOT_FOUND"),
            (Grpc::Code("12"), "grpc-status 12 (UNIMPLEMENTED"),
        ] {
            current.set(fault);
            let line = format!("endpoint {name} of upstream up is down: {why}");
            wait_for(&weir, line).await;
            current.set(Grpc::Status(1));
            wait_until_healthy(&weir, &name).await;
        }
    });
}

/// An endpoint on a thread of its own, whose checks may be counted and made to fail.
struct Checked {
    endpoint: Endpoint,
    is_well: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Checked {
    fn new(is_well: bool) -> Self {
        let (is_well, checks) = (Arc::new(AtomicBool::new(is_well)), Arc::default());
        let handler = Self::handler(&is_well, &checks);
        let endpoint = Endpoint::answering(handler);
        Self {
            endpoint,
            is_well,
            checks,
        }
    }

    fn handler(
        is_well: &Arc<AtomicBool>,
        checks: &Arc<AtomicUsize>,
    ) -> impl Fn(&Message) -> String + Send + Sync + 'static {
        let (is_well, checks) = (is_well.clone(), checks.clone());
        move |request| {
            if request.target() == "/up" {
                checks.fetch_add(1, Ordering::SeqCst);
                if !is_well.load(Ordering::SeqCst) {
                    return "HTTP/1.1 503 Whatever\r\nContent-Length: 0\r\n\r\n".to_owned();
                }
            }
            if request.target() == "/hang" {
                sleep(Duration::from_millis(600));
            }
            ok("ok")
        }
    }

    fn requests(&self) -> usize {
        let requests = self.endpoint.requests();
        requests
            .iter()
            .filter(|each| each.target() != "/up")
            .count()
    }

    fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }
}

fn config(keys: &str, endpoints: &[&str]) -> String {
    let names: Vec<_> = endpoints.iter().map(|&name| name.to_owned()).collect();
    routed("", &names, keys)
}

#[test]
fn unix_sockets_are_checked_too() {
    let dir = Weir::dir();
    let path = dir.join("app.sock");
    let is_well = Arc::new(AtomicBool::new(true));
    let handler = Checked::handler(&is_well, &Arc::default());
    let endpoint = Endpoint::answering_unix(&path, handler);
    let keys = "health = { http = \"/up\", interval = \"200ms\", timeout = \"3s\" }";
    let weir = Weir::start_in(&dir, &config(keys, &[&endpoint.name]));
    assert_eq!(weir.metric(&healthy(&endpoint.name)), 1.0);
    assert_eq!(endpoint.requests()[0].field("Host"), Some("localhost"));
    is_well.store(false, Ordering::SeqCst);
    weir.wait_for("is down: status 503");
}

#[test]
fn a_proxy_header_begins_the_connections_of_checks() {
    let endpoint = Endpoint::script(|conn| {
        assert_eq!(conn.line(), "PROXY UNKNOWN");
        while conn.next_request().is_some() {
            conn.send(ok(""));
        }
    });
    let keys = "health = { http = \"/up\", interval = \"200ms\", timeout = \"3s\" }\nproxy_protocol = \"v1\"";
    let weir = Weir::start(&config(keys, &[&endpoint.name]));
    assert_eq!(weir.metric(&healthy(&endpoint.name)), 1.0);
}

const TOKEN: &str = "a-token-of-24-characters";

fn call(weir: &Weir, method: &str, path: &str, body: &str) -> Message {
    let (admin, length) = (weir.admin, body.len());
    let mut conn = Conn::to(weir.admin);
    conn.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ));
    conn.response()
}

#[test]
fn an_endpoint_that_is_added_gets_nothing_before_its_first_good_check() {
    let (first, second) = (Checked::new(true), Checked::new(false));
    let dir = Weir::dir();
    std::fs::write(dir.join("token"), TOKEN).unwrap();
    let keys = "health = { http = \"/up\", interval = \"200ms\", timeout = \"3s\", rise = 1 }";
    let with_admin = format!(
        "admin = {{ address = \"{}\", token_file = \"token\" }}\n{}",
        free_address("127.0.0.2"),
        config(keys, &[&first.endpoint.name])
    );
    let weir = Weir::start_in(&dir, &with_admin);
    let body = format!("{{\"address\":\"{}\"}}", second.endpoint.name);
    let added = call(&weir, "POST", "/api/upstreams/up/endpoints", &body);
    assert_eq!(added.status(), 201);
    let shown: serde_json::Value = serde_json::from_slice(&added.body).unwrap();
    assert_eq!(shown["healthy"], false);
    for _ in 0..20 {
        assert_eq!(weir.ask(get("/")).status(), 200);
        sleep(Duration::from_millis(10));
    }
    assert_eq!(second.requests(), 0);
    weir.wait_for("is down: status 503");
    let path = format!("/api/upstreams/up/endpoints/{}", second.endpoint.name);
    let shown: serde_json::Value =
        serde_json::from_slice(&call(&weir, "GET", &path, "").body).unwrap();
    assert_eq!(shown["failure"], "status 503");
    let file = dir.join("weir.toml");
    let (code, status) = run_weir(&["status", "--file", file.to_str().unwrap()]);
    let name = &second.endpoint.name;
    let line = format!("endpoint {name} of up: down: status 503");
    assert!(code == Some(0) && status.contains(&line), "{status}");
    second.is_well.store(true, Ordering::SeqCst);
    eventually("requests for the new endpoint", || {
        assert_eq!(weir.ask(get("/")).status(), 200);
        (second.requests() > 0).then_some(())
    });
    let shown: serde_json::Value =
        serde_json::from_slice(&call(&weir, "GET", &path, "").body).unwrap();
    assert_eq!(shown["healthy"], true);
    assert!(shown.get("failure").is_none());
    // Checks of an endpoint that goes end.
    assert_eq!(call(&weir, "DELETE", &path, "").status(), 204);
    sleep(Duration::from_millis(100));
    let before = second.checks();
    sleep(Duration::from_millis(500));
    assert_eq!(second.checks(), before);
}

#[test]
fn a_reload_keeps_verdicts_and_what_endpoints_counted_as() {
    let (bad, good) = (Checked::new(false), Checked::new(true));
    let names = [&*bad.endpoint.name, &*good.endpoint.name];
    let checks = |more: &str| {
        let keys = format!(
            "panic = \"0%\"\nhealth = {{ http = \"/up\", interval = \"60s\", timeout = \"3s\"{more} }}"
        );
        config(&keys, &names)
    };
    let weir = Weir::start(&checks(""));
    weir.wait_for("is down: status 503");
    let before = good.checks();
    weir.reload(&format!(
        "trusted_proxies = [\"127.0.0.9\"]\n{}",
        checks("")
    ));
    weir.wait_for("reloaded in");
    assert_eq!(weir.metric(&healthy(&bad.endpoint.name)), 0.0);
    (0..10).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
    assert_eq!((bad.requests(), good.checks()), (0, before));
    // Other checks begin at once, with the former verdict until the first of them has ended.
    weir.reload(&checks(", fall = 2"));
    weir.wait_for("reloaded in");
    (0..10).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
    assert_eq!(bad.requests(), 0);
    eventually("a check of the new kind", || {
        (good.checks() == before + 1).then_some(())
    });
    // Without checks every endpoint is in use.
    weir.reload(&config("", &names));
    eventually("requests for both", || {
        assert_eq!(weir.ask(get("/")).status(), 200);
        (bad.requests() > 0).then_some(())
    });
    // Checks that come anew leave those in use until they decide.
    good.is_well.store(true, Ordering::SeqCst);
    weir.reload(&checks(""));
    weir.wait_for("is down: status 503");
    (0..10).for_each(|_| assert_eq!(weir.ask(get("/")).status(), 200));
}

#[test]
fn a_request_that_stalls_brings_the_next_check_forward() {
    let (one, other) = (Checked::new(true), Checked::new(true));
    let keys = "timeouts = { first_byte = \"200ms\" }\nretries = \"off\"\neject = \"off\"\n\
                health = { http = \"/up\", interval = \"60s\", timeout = \"3s\", fall = 1 }";
    let weir = Weir::start(&config(keys, &[&one.endpoint.name, &other.endpoint.name]));
    assert_eq!((one.checks(), other.checks()), (1, 1));
    one.is_well.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    eventually("a request to the endpoint that hangs", || {
        weir.ask(get("/hang"));
        (one.checks() > 1).then_some(())
    });
    weir.wait_for("is down: status 503");
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_check_that_passes_ends_an_ejection() {
    let failing = Arc::new(AtomicBool::new(true));
    let is_failing = failing.clone();
    let bad = Endpoint::answering(move |request| {
        if request.target() != "/up" && is_failing.load(Ordering::SeqCst) {
            return "HTTP/1.1 503 Whatever\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        ok("ok")
    });
    let good = Checked::new(true);
    let keys = "retries = \"off\"\neject = { failures = 2, duration = \"300s\" }\n\
                balance = \"round_robin\"\nhealth = { http = \"/up\", interval = \"1s\" }";
    let weir = Weir::start(&config(keys, &[&bad.name, &good.endpoint.name]));
    (0..10).for_each(|_| drop(weir.ask(get("/"))));
    weir.wait_for("is ejected for 300 s");
    failing.store(false, Ordering::SeqCst);
    weir.wait_for("passes its check and is tried again");
    eventually("the end of the trial", || {
        assert_eq!(weir.ask(get("/")).status(), 200);
        let ejected = format!(
            "weir_endpoint_ejected{{upstream=\"up\",endpoint=\"{}\"}}",
            bad.name
        );
        (weir.metric(&ejected) == 0.0).then_some(())
    });
}

/// With the settings of the documentation, an endpoint that fails under load is out of use within three seconds and back
/// within two intervals.
#[test]
fn an_endpoint_that_hangs_is_out_within_three_seconds() {
    let endpoints = [Checked::new(true), Checked::new(true), Checked::new(true)];
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = hangs.clone();
    let bad = Endpoint::answering(move |_| {
        while is_hanging.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5));
        }
        ok("ok")
    });
    let names = [
        &*bad.name,
        &*endpoints[0].endpoint.name,
        &*endpoints[1].endpoint.name,
    ];
    let keys = "timeouts = { first_byte = \"3s\" }\neject = \"off\"\n\
                health = { http = \"/\", interval = \"1s\" }";
    let weir = Weir::start(&config(keys, &names));
    let name = healthy(&bad.name);
    hangs.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    eventually("the verdict", || (weir.metric(&name) == 0.0).then_some(()));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    hangs.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    eventually("the recovery", || (weir.metric(&name) == 1.0).then_some(()));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_port_of_its_own_is_asked() {
    let checked = Checked::new(true);
    let closed = free_address("127.0.0.1");
    let port = checked.endpoint.name.rsplit_once(':').unwrap().1.to_owned();
    let keys = format!(
        "health = {{ http = \"/up\", interval = \"200ms\", timeout = \"3s\", port = {port} }}"
    );
    let weir = Weir::start(&config(&keys, &[&closed.to_string()]));
    assert_eq!(weir.metric(&healthy(&closed.to_string())), 1.0);
    let host = format!("127.0.0.1:{port}");
    assert_eq!(checked.endpoint.requests()[0].field("Host"), Some(&*host));
}
