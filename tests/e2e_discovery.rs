//! Endpoints that are found while Weir runs: DNS, files, lists at URLs, SRV records, Consul.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use e2e::*;

/// A configuration whose one upstream has these entries of `servers`.
fn config(before: &str, servers: &str) -> String {
    format!(
        "{before}\n[upstream.app]\nservers = [{servers}]\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n"
    )
}

/// An endpoint that answers with its own name.
fn named(name: &str) -> Endpoint {
    let name = name.to_owned();
    Endpoint::answering(move |_| ok(&name))
}

fn port(endpoint: &Endpoint) -> u16 {
    endpoint.name.rsplit(':').next().unwrap().parse().unwrap()
}

/// The answers to as many requests as show every endpoint.
fn answers(weir: &Weir) -> BTreeSet<String> {
    (0..12).map(|_| weir.ask(get("/")).text()).collect()
}

#[track_caller]
fn becomes(weir: &Weir, wanted: &[&str]) {
    let wanted: BTreeSet<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
    eventually("the endpoints", || (answers(weir) == wanted).then_some(()));
}

/// Replaces a file at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Serves what `body` returns for the target of each request.
fn server(body: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Endpoint {
    Endpoint::answering(body)
}

fn json(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn failures(source: &str) -> String {
    format!("weir_discovery_failures_total{{upstream=\"app\",source=\"{source}\"}}")
}

#[test]
fn a_name_is_looked_up_again_when_its_ttl_ends() {
    let dns = DnsServer::start();
    let (one, six) = (
        named("one"),
        Endpoint::answering_at("[::1]:0", |_| ok("six")),
    );
    dns.set_addresses("app.test", 1, &["127.0.0.1"]);
    let servers = format!("\"app.test:{}\", \"app.test:{}\"", port(&one), port(&six));
    let key = dns.key(", timeout = \"300ms\", ttl_min = \"200ms\"");
    let text = config(&key, &servers)
        + &format!(
            "[upstream.two]\nservers = [\"app.test:{}\"]\n[[route]]\nmatch = \"/two\"\nto = \"two\"\n",
            port(&one)
        );
    let weir = Weir::start(&text);
    let asked = dns.asked("app.test");
    assert_eq!(asked, 1, "one lookup for three endpoints");
    assert_eq!(weir.ask(get("/two")).text(), "one");
    dns.set_addresses("app.test", 1, &["127.0.0.1", "::1"]);
    weir.wait_for("app.test has changed from 127.0.0.1 to 127.0.0.1, ::1");
    becomes(&weir, &["one", "six"]);
    // The last good answer stays, whatever goes wrong.
    let name = failures("dns:app.test");
    for says in [DnsName::Silence, DnsName::Failure] {
        let before = weir.metric(&name);
        dns.set("app.test", says);
        eventually("a failure", || (weir.metric(&name) > before).then_some(()));
        becomes(&weir, &["one", "six"]);
    }
    dns.remove("app.test");
    let health = || weir.admin("/healthz?verbose").text();
    eventually("what is wrong", || {
        health()
            .contains("app.test is not found: the name does not exist")
            .then_some(())
    });
    becomes(&weir, &["one", "six"]);
    dns.set_addresses("app.test", 1, &["::1"]);
    weir.wait_for("found app.test after ");
    becomes(&weir, &["six"]);
    assert_eq!(weir.metric("weir_reload_total"), 0.0);
    let said = weir.stderr.so_far();
    let logged = said
        .iter()
        .filter(|line| line.contains("app.test is not found now"));
    assert_eq!(logged.count(), 1, "a row of failures is one line: {said:?}");
}

#[test]
fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let dns = DnsServer::start();
    let addresses = (1..=65).map(|n| DnsRecord::Address([127, 0, 1, n].into()));
    dns.set("app.test", DnsName::Truncated(60, addresses.collect()));
    let weir = Weir::start(&config(&dns.key(""), "\"app.test:80\""));
    let plan = weir.admin("/plan").text();
    assert_eq!(plan.matches("app.test").count(), 65, "{plan}");
}

#[test]
fn srv_records_give_ports_weights_and_priorities() {
    let dns = DnsServer::start();
    let (one, two, spare) = (named("one"), named("two"), named("spare"));
    let srv = |priority, weight, of: &Endpoint, host: &str| {
        DnsRecord::Srv(priority, weight, port(of), host.to_owned())
    };
    dns.set_addresses("a.test", 60, &["127.0.0.1"]);
    let records = vec![
        srv(10, 3, &one, "a.test"),
        srv(10, 1, &two, "a.test"),
        srv(20, 1, &spare, "a.test"),
    ];
    dns.set("_http._tcp.test", DnsName::Records(1, records));
    let weir = Weir::start(&config(
        &dns.key(", ttl_min = \"200ms\""),
        "{ srv = \"_http._tcp.test\" }",
    ));
    becomes(&weir, &["one", "two"]);
    let plan = weir.admin("/plan").text();
    assert!(
        plan.contains("\"sources\":[{\"name\":\"srv:_http._tcp.test\",\"endpoints\":3}]"),
        "{plan}"
    );
    assert!(plan.contains("\"weight\":3"), "{plan}");
    // A new target has its addresses by the time that it replaces the old ones.
    dns.set_addresses("b.test", 60, &["127.0.0.1"]);
    dns.set(
        "_http._tcp.test",
        DnsName::Records(1, vec![srv(0, 0, &two, "b.test")]),
    );
    becomes(&weir, &["two"]);
    // Targets without addresses, no records and `.` change nothing.
    let name = failures("srv:_http._tcp.test");
    for records in [
        vec![srv(0, 0, &one, "none.test")],
        Vec::new(),
        vec![srv(0, 0, &one, "")],
    ] {
        let before = weir.metric(&name);
        dns.set("_http._tcp.test", DnsName::Records(1, records));
        eventually("a failure", || (weir.metric(&name) > before).then_some(()));
        becomes(&weir, &["two"]);
    }
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let (one, two, three) = (named("one"), named("two"), named("three"));
    let dir = Weir::dir();
    let file = dir.join("app.servers");
    let source = format!("file://{}", file.display());
    replace(&file, &format!("# rack 1\n{} # first\n", one.name));
    let text = config("", &format!("\"{source}\", \"{}\"", three.name));
    let weir = Weir::start_in(&dir, &text);
    becomes(&weir, &["one", "three"]);
    replace(
        &file,
        &format!(
            "[{{\"address\": \"{}\", \"weight\": 3}}, \"{}\"]",
            two.name, three.name
        ),
    );
    weir.wait_for(&format!("{source} answers: 2 endpoints, 2 new, 1 gone"));
    becomes(&weir, &["two", "three"]);
    let (failed, endpoints) = (
        failures(&source),
        format!("weir_discovery_endpoints{{upstream=\"app\",source=\"{source}\"}}"),
    );
    assert_eq!((weir.metric(&failed), weir.metric(&endpoints)), (0.0, 2.0));
    for broken in ["", "[]", "[\"10.0.0.1\"]", "not an address\n"] {
        let before = weir.metric(&failed);
        replace(&file, broken);
        eventually("a failure", || {
            (weir.metric(&failed) > before).then_some(())
        });
        becomes(&weir, &["two", "three"]);
    }
    let health = weir.admin("/healthz?verbose").text();
    assert!(
        health.contains(&format!("{source} gives no endpoints: line 1: ")),
        "{health}"
    );
    // A reload keeps the last good answer, and says why.
    weir.reload(&text);
    weir.wait_for("; the former 2 endpoints stay");
    weir.wait_for("reloaded in ");
    becomes(&weir, &["two", "three"]);
    replace(&file, &format!("{}\n", one.name));
    weir.wait_for(&format!("{source} answers after "));
    becomes(&weir, &["one", "three"]);
}

#[test]
fn a_start_waits_for_no_source_and_check_and_explain_name_them() {
    let one = named("one");
    let dir = Weir::dir();
    let file = dir.join("late.servers");
    let source = format!("file://{}", file.display());
    let text = config("", &format!("\"{source}\""));
    let weir = Weir::start_in(&dir, &text);
    weir.ask(get("/"))
        .expect_refusal(503, "unresolved", "dns_error");
    weir.wait_for(&format!(
        "`{source}` of upstream `app` gives no endpoints: it cannot be read"
    ));
    replace(&file, &one.name);
    becomes(&weir, &["one"]);
    let path = dir.join("weir.toml");
    let path = path.to_str().unwrap();
    let (code, output) = run_weir(&["check", path]);
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains(&format!("upstream app: {source} gives 1 endpoint\n")),
        "{output}"
    );
    let (code, output) = run_weir(&["explain", path, "GET", "http://a.test/"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains(&format!("source {source}, 1 endpoint\n")),
        "{output}"
    );
    assert!(
        output.contains(&format!("endpoint {}", one.name)),
        "{output}"
    );
}

#[test]
fn a_list_at_a_url_is_fetched_again_and_again() {
    let (one, two) = (named("one"), named("two"));
    let list = Arc::new(Mutex::new(json(&format!("[\"{}\"]", one.name))));
    let shared = list.clone();
    let origin = server(move |_| shared.lock().unwrap().clone());
    let url = format!("http://{}/app", origin.name);
    let weir = Weir::start(&config(
        "",
        &format!("{{ list = \"{url}\", every = \"200ms\" }}"),
    ));
    becomes(&weir, &["one"]);
    *list.lock().unwrap() = json(&format!(
        "[\"{}\", {{\"address\": \"{}\"}}]",
        one.name, two.name
    ));
    becomes(&weir, &["one", "two"]);
    let failed = failures(&format!("list:{url}"));
    let long = json(&format!("[{}\"\"]", "\"10.0.0.1:80\",".repeat(5_000)));
    let moved = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec();
    let down = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n".to_vec();
    for broken in [json("[]"), json("{"), json("<html>"), long, moved, down] {
        let before = weir.metric(&failed);
        *list.lock().unwrap() = broken;
        eventually("a failure", || {
            (weir.metric(&failed) > before).then_some(())
        });
        becomes(&weir, &["one", "two"]);
    }
    *list.lock().unwrap() = json(&format!("[\"{}\"]", two.name));
    becomes(&weir, &["two"]);
}

/// The catalog of a Consul that tests change.
#[derive(Default)]
struct Catalog {
    index: AtomicUsize,
    instances: Mutex<String>,
    targets: Mutex<Vec<String>>,
    tokens: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Catalog {
    fn set(&self, ports: &[u16]) {
        let instance = |port: &u16| {
            format!(
                "{{\"Node\":{{\"Address\":\"127.0.0.1\"}},\"Service\":{{\"Address\":\"\",\"Port\":{port},\"Weights\":{{\"Passing\":1}}}}}}"
            )
        };
        let instances: Vec<_> = ports.iter().map(instance).collect();
        *self.instances.lock().unwrap() = format!("[{}]", instances.join(","));
        self.index.fetch_add(1, Ordering::SeqCst);
    }

    fn answer(&self, request: &Message) -> Vec<u8> {
        let target = request.target().to_owned();
        let token = request
            .field("x-consul-token")
            .unwrap_or_default()
            .to_owned();
        let asked = target.split("index=").nth(1);
        let asked = asked.map(|rest| rest.split('&').next().unwrap().parse().unwrap());
        self.targets.lock().unwrap().push(target);
        self.tokens.lock().unwrap().push(token);
        // A query with an index waits for a change.
        let deadline = Instant::now() + DEADLINE;
        while asked == Some(self.index.load(Ordering::SeqCst))
            && !self.is_over.load(Ordering::SeqCst)
            && Instant::now() < deadline
        {
            sleep(Duration::from_millis(5));
        }
        let (index, body) = (
            self.index.load(Ordering::SeqCst),
            self.instances.lock().unwrap(),
        );
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

#[test]
fn consul_is_asked_with_blocking_queries() {
    let (one, two) = (named("one"), named("two"));
    let catalog = Arc::<Catalog>::default();
    catalog.set(&[port(&one)]);
    let shared = catalog.clone();
    let consul = server(move |request| shared.answer(request));
    let dir = Weir::dir();
    std::fs::write(dir.join("token"), "secret-1\n").unwrap();
    let servers = format!(
        "{{ consul = \"http://{}\", service = \"web\", tag = \"v2\", token_file = \"token\" }}",
        consul.name
    );
    let weir = Weir::start_in(&dir, &config("", &servers));
    becomes(&weir, &["one"]);
    eventually("a blocking query", || {
        let targets = catalog.targets.lock().unwrap();
        targets
            .last()?
            .ends_with("?passing=1&tag=v2&index=1&wait=30s")
            .then_some(())
    });
    let asked = catalog.targets.lock().unwrap().len();
    catalog.set(&[port(&one), port(&two)]);
    becomes(&weir, &["one", "two"]);
    assert!(catalog.targets.lock().unwrap().len() <= asked + 3);
    assert!(
        catalog
            .tokens
            .lock()
            .unwrap()
            .iter()
            .all(|token| token == "secret-1")
    );
    // No instance passes: the last ones stay.
    let failed = failures(&format!("consul:http://{}/web?tag=v2", consul.name));
    catalog.set(&[]);
    eventually("a failure", || (weir.metric(&failed) > 0.0).then_some(()));
    becomes(&weir, &["one", "two"]);
    catalog.set(&[port(&two)]);
    becomes(&weir, &["two"]);
    assert!(
        !weir
            .stderr
            .so_far()
            .iter()
            .any(|line| line.contains("secret-1"))
    );
    catalog.is_over.store(true, Ordering::SeqCst);
}

#[test]
fn endpoints_change_under_load_without_a_failed_request() {
    let endpoints: Vec<_> = (0..6).map(|n| named(&format!("e{n}"))).collect();
    let dir = Weir::dir();
    let file = dir.join("app.servers");
    let write = |from: usize| {
        let chosen = (0..3).map(|n| endpoints[(from + n) % 6].name.clone());
        replace(&file, &chosen.collect::<Vec<_>>().join("\n"));
    };
    write(0);
    let source = format!("\"file://{}\"", file.display());
    let weir = Weir::start_in(&dir, &config("cores = 2", &source));
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let mut client = weir.connect();
                while !is_over.load(Ordering::SeqCst) {
                    client.send(get("/"));
                    let answer = client.response();
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 1..=6 {
            let epoch = weir.metric("weir_endpoints_epoch");
            write(round * 2);
            eventually("new endpoints", || {
                (weir.metric("weir_endpoints_epoch") > epoch).then_some(())
            });
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(sent.load(Ordering::SeqCst) > 500);
    assert_eq!(weir.metric("weir_reload_total"), 0.0);
}

#[test]
fn an_endpoint_that_goes_finishes_its_requests() {
    let (gate, begun) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (shared, begins) = (gate.clone(), begun.clone());
    let slow = Endpoint::answering(move |request| {
        let deadline = Instant::now() + DEADLINE;
        let is_slow = request.target() == "/slow";
        begins.fetch_or(is_slow, Ordering::SeqCst);
        while is_slow && !shared.load(Ordering::SeqCst) && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
        }
        ok("slow")
    });
    let other = named("other");
    let dir = Weir::dir();
    let file = dir.join("app.servers");
    replace(&file, &slow.name);
    let weir = Weir::start_in(&dir, &config("", &format!("\"file://{}\"", file.display())));
    let mut client = weir.connect();
    client.send(get("/slow"));
    eventually("the request", || begun.load(Ordering::SeqCst).then_some(()));
    replace(&file, &other.name);
    eventually("the other endpoint", || {
        (weir.ask(get("/")).text() == "other").then_some(())
    });
    gate.store(true, Ordering::SeqCst);
    assert_eq!(client.response().text(), "slow");
}

#[test]
fn what_a_listener_without_http_cannot_use_is_left_out() {
    let (dir, good) = (Weir::dir(), named("good"));
    let file = dir.join("servers");
    replace(&file, &format!("https://127.0.0.1:9\n{}\n", good.name));
    let text = format!(
        "[listen.\"127.0.0.1:0\"]\npassthrough = {{ \"*\" = \"app\" }}\n[upstream.app]\nservers = [\"file://{}\"]\n",
        file.display()
    );
    let weir = Weir::start_in(&dir, &text);
    weir.wait_for("endpoint `https://127.0.0.1:9` that a source gave for upstream `app` is left out: it begins TLS of its own");
    weir.wait_for("1 upstream with 1 endpoint");
    replace(&file, &format!("{}\nh2c://127.0.0.1:9\n", good.name));
    weir.wait_for("endpoint `h2c://127.0.0.1:9` that a source gave for upstream `app` is left out: it speaks HTTP/2");
}
