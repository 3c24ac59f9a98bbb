//! Signals, reload, logs, metrics, exit codes and the other commands.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use e2e::*;
use rustix::process::Signal;

/// An endpoint whose answers wait for the test: each message on the sender releases one. The receiver reports each
/// request.
fn waiting(answer: &'static str) -> (Endpoint, Sender<()>, std::sync::mpsc::Receiver<()>) {
    let (go, wait) = channel::<()>();
    let (begun, has_begun) = channel();
    let wait = Mutex::new(wait);
    let endpoint = Endpoint::script(move |conn| {
        while conn.next_request().is_some() {
            begun.send(()).unwrap();
            if wait.lock().unwrap().recv_timeout(DEADLINE).is_err() {
                return;
            }
            let _ = conn.try_send(ok(answer));
        }
    });
    (endpoint, go, has_begun)
}

#[test]
fn unix_sockets_on_both_sides() {
    let dir = Weir::dir();
    let (front, back) = (dir.join("front.sock"), dir.join("back.sock"));
    let endpoint = Endpoint::answering_unix(&back, |request| {
        ok(&format!(
            "{} {}",
            request.field("X-Forwarded-For").unwrap(),
            request.text()
        ))
    });
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"unix:{}\"]\n[listen.\"127.0.0.1:0\"]\n{}",
            front.display(),
            route_to(&[&endpoint])
        ),
    );
    let mut client = Conn::to_unix(&front);
    for _ in 0..3 {
        client.send(post("/", "over a file"));
        assert_eq!(client.response().text(), "unknown over a file");
    }
    assert_eq!(weir.ask(post("/tcp", "mixed")).text(), "127.0.0.1 mixed");
    assert_eq!(endpoint.connections(), 1);
    let entry = weir.entry("/");
    assert_eq!(
        (entry.text("client").as_str(), entry.text("listener")),
        ("", format!("unix:{}", front.display()))
    );
    weir.signal(Signal::TERM);
    weir.wait_for("drained");
    eventually("the file to go", || (!front.exists()).then_some(()));
}

#[test]
fn sigterm_finishes_what_is_under_way() {
    let (endpoint, go, has_begun) = waiting("finished");
    let mut weir = Weir::to(&[&endpoint]);
    let (mut busy, mut idle) = (weir.connect(), weir.connect());
    idle.send(get("/"));
    go.send(()).unwrap();
    idle.response();
    has_begun.recv_timeout(DEADLINE).unwrap();
    busy.send(get("/busy"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    assert_eq!(weir.admin("/healthz").status(), 200);
    weir.signal(Signal::TERM);
    weir.wait_for("SIGTERM: draining");
    // Idle connections close at once, new ones are refused, and health says why.
    idle.expect_closed();
    eventually("nobody to listen", || {
        std::net::TcpStream::connect(weir.address)
            .is_err()
            .then_some(())
    });
    let health = weir.admin("/healthz");
    assert_eq!(
        (health.status(), health.text().as_str()),
        (503, "draining\n")
    );
    assert_eq!(weir.metric("weir_draining"), 1.0);
    go.send(()).unwrap();
    let response = busy.response();
    assert_eq!(
        (response.text().as_str(), response.field("Connection")),
        ("finished", Some("close"))
    );
    busy.expect_closed();
    assert_eq!(weir.wait().code(), Some(0));
    // The log has a line for every request.
    assert_eq!(weir.log.to_end().len(), 2);
}

#[test]
fn a_drain_is_bounded_by_the_grace_period() {
    let (endpoint, _go, has_begun) = waiting("never");
    let mut weir = Weir::with("timeouts = { grace = \"300ms\" }", &[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    weir.signal(Signal::INT);
    let response = client.response();
    assert_eq!(response.status(), 503);
    assert!(
        response.text().contains("\"shutting_down\""),
        "{}",
        response.text()
    );
    assert_eq!(weir.wait().code(), Some(0));
    assert_eq!(weir.entry("/").text("reason"), "shutting_down");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (endpoint, _go, has_begun) = waiting("never");
    let mut weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(get("/"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    weir.signal(Signal::TERM);
    weir.wait_for("SIGTERM: draining");
    weir.signal(Signal::TERM);
    weir.wait_for("SIGTERM again: ending at once");
    let _ = client.rest();
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn a_reload_is_for_new_exchanges_on_old_connections_too() {
    let (endpoint, go, has_begun) = waiting("old plan");
    let weir = Weir::start(&format!(
        "{}[[route]]\nmatch = \"/v\"\nrespond = \"one\"\n",
        route_to(&[&endpoint])
    ));
    let (mut client, mut busy) = (weir.connect(), weir.connect());
    client.send(get("/v"));
    assert_eq!(client.response().text(), "one");
    busy.send(get("/busy"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    weir.reload("[[route]]\nmatch = \"/v\"\nrespond = \"two\"\n");
    weir.wait_for("reloaded in");
    client.send(get("/v"));
    assert_eq!(client.response().text(), "two");
    client.send(get("/busy"));
    assert_eq!(client.response().status(), 404);
    // A running exchange keeps its own plan to its end.
    go.send(()).unwrap();
    assert_eq!(busy.response().text(), "old plan");
    busy.send(get("/v"));
    assert_eq!(busy.response().text(), "two");
    assert_eq!(
        (
            weir.metric("weir_plan_epoch"),
            weir.metric("weir_reload_total")
        ),
        (2.0, 1.0)
    );
    let entry = weir.entry("/busy");
    assert_eq!(
        (entry.text("upstream"), entry.text("route")),
        (String::new(), String::new())
    );
    let old = |line: &str| {
        (line.contains("\"path\":\"/busy\"") && line.contains("\"upstream\":\"up\"")).then_some(())
    };
    weir.log.wait("the exchange of the old plan", old);
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let weir = Weir::start("[[route]]\nmatch = \"/v\"\nrespond = \"one\"\n");
    let mut client = weir.connect();
    let mut failed = 0.0;
    for (bad, said) in [
        ("[[route]]\nmatch = \"/v\"\nrespnd = \"two\"\n", "respnd"),
        ("[[route]]\nmatch = \"/v\"\nto = \"nowhere\"\n", "nowhere"),
        (
            "[[route]]\nmatch = \"/v\"\nrespond = \"two\"\n[[test]]\nrequest = \"GET http://a/v\"\nstatus = 404\n",
            "404",
        ),
        (
            "[[route]]\nmatch = \"/v\"\nrespond = \"two\"\n[listen.\"127.0.0.1:0\"]\n[listen.\"192.0.2.1:80\"]\n",
            "192.0.2.1",
        ),
        ("not even TOML", "weir.toml"),
    ] {
        weir.reload(bad);
        failed += 1.0;
        eventually("the failure to be counted", || {
            (weir.metric("weir_reload_failed_total") == failed).then_some(())
        });
        eventually("the reason", || {
            weir.admin("/healthz?verbose")
                .text()
                .contains(said)
                .then_some(())
        });
        client.send(get("/v"));
        assert_eq!(client.response().text(), "one", "{bad}");
    }
    weir.wait_for("reload failed, nothing has changed");
    assert_eq!(weir.metric("weir_plan_epoch"), 1.0);
    assert_eq!(weir.admin("/healthz").status(), 200, "it serves as before");
    weir.reload("[[route]]\nmatch = \"/v\"\nrespond = \"two\"\n");
    weir.wait_for("reloaded in");
    client.send(get("/v"));
    assert_eq!(client.response().text(), "two");
    assert!(
        !weir
            .admin("/healthz?verbose")
            .text()
            .contains("the last reload failed")
    );
}

#[test]
fn a_reload_adds_and_removes_listeners_and_leaves_the_others_alone() {
    let route = "[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n";
    let weir = Weir::start(&format!("[listen.\"127.0.0.1:0\"]\n{route}"));
    let mut stays = weir.connect();
    weir.reload(&format!(
        "[listen.\"127.0.0.1:0\"]\n[listen.\"127.0.0.3:0\"]\n{route}"
    ));
    let added: SocketAddr = weir
        .wait_for("reload: listening on ")
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let mut goes = Conn::to(added);
    goes.send(get("/"));
    assert_eq!(goes.response().text(), "hello");
    weir.reload(&format!("[listen.\"127.0.0.1:0\"]\n{route}"));
    goes.expect_closed();
    eventually("nobody to listen", || {
        std::net::TcpStream::connect(added).is_err().then_some(())
    });
    stays.send(get("/"));
    assert_eq!(stays.response().text(), "hello");
}

#[test]
fn an_exchange_ends_well_though_its_listener_is_gone() {
    let (endpoint, go, has_begun) = waiting("finished");
    let weir = Weir::start(&format!(
        "[listen.\"127.0.0.1:0\"]\n{}",
        route_to(&[&endpoint])
    ));
    let mut client = weir.connect();
    client.send(get("/"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    weir.reload(&format!(
        "[listen.\"127.0.0.3:0\"]\n{}",
        route_to(&[&endpoint])
    ));
    weir.wait_for("reloaded in");
    go.send(()).unwrap();
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), response.field("Connection")),
        ("finished", Some("close"))
    );
    client.expect_closed();
}

#[test]
fn a_reload_keeps_connections_to_endpoints_that_stay() {
    let (stays, goes) = (
        Endpoint::answering(|_| ok("stays")),
        Endpoint::answering(|_| ok("goes")),
    );
    let weir = Weir::to(&[&stays, &goes]);
    let mut client = weir.connect();
    for _ in 0..4 {
        client.send(get("/"));
        client.response();
    }
    weir.reload(&route_to(&[&stays]));
    // Control reports the reload before the core has read its message.
    eventually("the core's new plan", || {
        (weir.metric("weir_core_plan_epoch{core=\"0\"}") == 2.0).then_some(())
    });
    for _ in 0..4 {
        client.send(get("/"));
        assert_eq!(client.response().text(), "stays");
    }
    assert_eq!((stays.connections(), goes.connections()), (1, 1));
    let name = format!(
        "weir_endpoint_connections_open{{upstream=\"up\",endpoint=\"{}\"}}",
        stays.name
    );
    assert_eq!(weir.metric(&name), 1.0);
}

#[test]
fn the_access_log_says_what_happened() {
    let endpoint = Endpoint::answering(|_| ok("an answer"));
    let weir = Weir::to(&[&endpoint]);
    weir.ask("POST /log?q=\"x\" HTTP/1.1\r\nHost: Weir.test:80\r\nContent-Length: 4\r\n\r\nbody");
    let entry = weir.entry("/log?q=\"x\"");
    for (name, expected) in [
        ("client", "127.0.0.1"),
        ("listener", "127.0.0.1:0"),
        ("method", "POST"),
        ("version", "HTTP/1.1"),
        ("route", "/*"),
        ("upstream", "up"),
        ("endpoint", &endpoint.name),
        ("reason", ""),
    ] {
        assert_eq!(entry.text(name), expected, "{name}");
    }
    assert!(entry.text("host").eq_ignore_ascii_case("weir.test"));
    for (name, expected) in [
        ("status", 200.0),
        ("bytes_in", 4.0),
        ("bytes_out", 9.0),
        ("attempts", 1.0),
    ] {
        assert_eq!(entry.number(name), expected, "{name}");
    }
    for name in ["total_ms", "queue_ms", "connect_ms", "first_byte_ms"] {
        assert!(entry.number(name) >= 0.0, "{name}");
    }
    assert!(entry.number("total_ms") >= entry.number("connect_ms"));
    let sent = endpoint.only_request();
    assert_eq!(
        entry.text("id"),
        sent.field("X-Request-Id").unwrap(),
        "one number for log and endpoint"
    );
    let time = entry.text("time");
    assert!(
        time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000Z".len(),
        "{time}"
    );
}

#[test]
fn the_access_log_cannot_be_forged() {
    let weir = Weir::start("[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n");
    let forged = "/\",\"status\":999,\"path\":\"/x%0a\"},{\"";
    let marks = "/\u{202e}\u{85}x";
    for path in [forged, marks, "/last"] {
        weir.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    weir.entry("/last");
    let lines = weir.log.so_far();
    let entries: Vec<_> = lines.iter().filter_map(|line| Entry::parse(line)).collect();
    assert_eq!(
        (lines.len(), entries.len()),
        (3, 3),
        "each is one JSON object: {lines:?}"
    );
    assert_eq!(entries[0].target(), forged);
    assert!(entries.iter().all(|entry| entry.number("status") < 500.0));
    assert!(
        lines
            .iter()
            .all(|line| !line.contains(['\u{85}', '\u{202e}']))
    );
}

#[test]
fn the_access_log_file_is_reopened_and_may_be_text() {
    let dir = Weir::dir();
    let (log, rotated) = (dir.join("access.log"), dir.join("access.log.1"));
    let weir = Weir::start_in(
        &dir,
        &format!(
            "access_log = {{ to = {:?}, format = \"text\" }}\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n",
            log.display().to_string()
        ),
    );
    let wait_for = |file: &std::path::Path, path: &str| {
        eventually(path, || {
            let text = std::fs::read_to_string(file).ok()?;
            text.lines()
                .find(|line| line.contains(path))
                .map(str::to_owned)
        })
    };
    weir.ask(get("/first"));
    let line = wait_for(&log, "/first");
    assert!(
        line.contains("127.0.0.1 \"GET\" \"weir.test\" \"/first\" HTTP/1.1 200 in=0 out=5"),
        "{line}"
    );
    std::fs::rename(&log, &rotated).unwrap();
    weir.signal(Signal::USR1);
    eventually("a line in the new file", || {
        weir.ask(get("/second"));
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("/second").then_some(())
    });
    weir.ask(get("/third"));
    wait_for(&log, "/third");
    assert!(
        !std::fs::read_to_string(&rotated)
            .unwrap()
            .contains("/third")
    );
}

#[test]
fn metrics_count_what_happened() {
    let endpoint = Endpoint::answering(|_| ok("12345"));
    let weir = Weir::start(&format!(
        "{}[[route]]\nmatch = \"/teapot\"\nrespond = 418\n",
        route_to(&[&endpoint])
    ));
    for _ in 0..3 {
        weir.ask(post("/", "abc"));
    }
    weir.ask(get("/teapot"));
    weir.ask(get("/a%00"));
    for (name, value) in [
        (
            "weir_exchanges_total{listener=\"127.0.0.1:0\",class=\"2xx\"}",
            3.0,
        ),
        (
            "weir_exchanges_total{listener=\"127.0.0.1:0\",class=\"4xx\"}",
            2.0,
        ),
        (
            "weir_request_body_bytes_total{listener=\"127.0.0.1:0\"}",
            9.0,
        ),
        (
            "weir_route_exchanges_total{route=\"/teapot\",class=\"4xx\"}",
            1.0,
        ),
        (
            "weir_upstream_exchanges_total{upstream=\"up\",class=\"2xx\"}",
            3.0,
        ),
        (
            "weir_reasons_total{listener=\"127.0.0.1:0\",reason=\"bad_path\"}",
            1.0,
        ),
        ("weir_connections_total{listener=\"127.0.0.1:0\"}", 5.0),
        ("weir_route_duration_seconds_count{route=\"/*\"}", 3.0),
    ] {
        eventually(name, || (weir.metric(name) == value).then_some(()));
    }
    let page = weir.admin("/metrics");
    assert!(
        page.field("Content-Type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let mut family = String::new();
    for line in page.text().lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap().to_owned();
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family), "{line} is not of {family}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

#[test]
fn the_admin_listener_reads_and_changes_nothing() {
    let weir = Weir::start("[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n");
    assert_eq!(weir.admin("/nothing").status(), 404);
    let plan: tinyjson::JsonValue = weir.admin("/plan").text().parse().unwrap();
    assert_eq!(plan["epoch"].get::<f64>(), Some(&1.0));
    let listener = &plan["listeners"][0];
    assert_eq!(listener["http2"].get::<bool>(), Some(&true));
    assert_eq!(listener["proxy_protocol"].get::<bool>(), Some(&false));
    assert!(listener["redirect_https"].is_null());
    let mut client = Conn::to(weir.admin);
    client.send("POST /metrics HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response().status(), 405);
}

/// Runs a command to its end: exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn exit_codes_are_as_documented() {
    let dir = Weir::dir();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = file(
        "good.toml",
        "[listen.\"127.0.0.1:0\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"x\"\n",
    );
    let bad = file(
        "bad.toml",
        "[listen.\"127.0.0.1:0\"]\n[[route]]\nmatch = \"/*\"\nrespnd = \"x\"\n",
    );
    let missing = dir.join("missing.toml").display().to_string();
    assert_eq!(run(&["--help"]).0, 0);
    assert_eq!(run(&["--version"]).0, 0);
    let (code, out, _) = run(&["check", &good]);
    assert_eq!(
        (code, out.contains(": ok; 1 listener, 1 route")),
        (0, true),
        "{out}"
    );
    for command in ["check", "run"] {
        let (code, _, err) = run(&[command, &bad]);
        assert_eq!(
            (code, err.contains("respond")),
            (3, true),
            "{command}: {err}"
        );
        let (code, _, err) = run(&[command, &missing]);
        assert_eq!(
            (code, err.contains("missing.toml")),
            (3, true),
            "{command}: {err}"
        );
    }
    for arguments in [
        &["frobnicate"][..],
        &["run"],
        &["run", &good, &good],
        &["run", "--fast", &good],
        &[],
    ] {
        let (code, _, err) = run(arguments);
        assert_eq!(
            (code, err.starts_with("error: ")),
            (2, true),
            "{arguments:?}: {err}"
        );
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["proxy", &address, "127.0.0.1:9"]);
    assert_eq!((code, err.contains("in use")), (1, true), "{err}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn check_shows_the_place_of_names_and_tests_that_fail() {
    let dir = Weir::dir();
    let path = dir.join("weir.toml").display().to_string();
    let write = |status: u16| {
        let text = format!(
            "[listen.\"127.0.0.1:0\"]\n[upstream.up]\nservers = [\"127.0.0.1:9\", \"nowhere.invalid:80\"]\n\
             [[route]]\nmatch = \"/x\"\nto = \"up\"\n[[test]]\nrequest = \"GET http://a/y\"\nstatus = {status}\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    write(404);
    // A name that cannot be resolved is reported and does not prevent a start.
    let (code, out, _) = run(&["check", &path]);
    let place = format!(
        " --> {path}:3:27\n  |\n3 | servers = [\"127.0.0.1:9\", \"nowhere.invalid:80\"]\n  |                           ^^^^"
    );
    assert!(
        code == 0
            && out.starts_with("warning: ")
            && out.contains(&place)
            && out.contains("--no-resolve"),
        "{out}"
    );
    let (code, out, _) = run(&["explain", &path, "GET", "http://a/x"]);
    assert!(
        code == 0 && out.contains("endpoint nowhere.invalid:80, not found: "),
        "{out}"
    );
    let (_, json, _) = run(&["check", &path, "--json"]);
    assert!(
        json.contains("\"code\": \"unresolved\"") && json.contains("\"column\": 27"),
        "{json}"
    );
    let (code, out, _) = run(&["check", &path, "--no-resolve"]);
    assert!(
        code == 0 && out.ends_with("1 test passed; names were not resolved\n"),
        "{out}"
    );
    write(200);
    let (code, _, err) = run(&["check", &path, "--no-resolve"]);
    let place =
        format!(" --> {path}:8:11\n  |\n8 | request = \"GET http://a/y\"\n  |           ^^^^");
    assert!(
        code == 3 && err.contains(&place) && err.contains("expected status 200"),
        "{err}"
    );
    // `explain` answers why a test fails.
    std::fs::write(
        &path,
        std::fs::read_to_string(&path)
            .unwrap()
            .replace("nowhere.invalid", "127.0.0.2"),
    )
    .unwrap();
    let (code, out, _) = run(&["explain", &path, "GET", "http://a/y"]);
    assert!(code == 0 && out.contains("no_route"), "{out}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn explain_uses_the_words_of_the_log() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    let text = "[listen.\"127.0.0.1:0\"]\n[[route]]\nname = \"only posts\"\nmatch = { path = \"/p\", method = \"POST\" }\nrespond = \"x\"\n";
    std::fs::write(&file, text).unwrap();
    let (code, out, err) = run(&["explain", file.to_str().unwrap(), "GET", "http://a/p"]);
    assert!(
        out.contains("only posts") && out.contains("method_not_allowed"),
        "{code} {out} {err}"
    );
    let (_, out, _) = run(&["explain", file.to_str().unwrap(), "GET", "http://a/nowhere"]);
    assert!(out.contains("no_route"), "{out}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn proxy_needs_no_file() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::command(&[
        "proxy",
        "127.0.0.1:0",
        &endpoint.name,
        "--cores",
        "1",
        "--access-log",
        "stdout",
    ]);
    assert_eq!(weir.ask(get("/x")).text(), "hello");
    assert_eq!(weir.entry("/x").text("endpoint"), endpoint.name);
    weir.signal(Signal::HUP);
    weir.wait_for("there is no file to reload");
    assert_eq!(weir.ask(get("/x")).text(), "hello");
}

#[test]
fn demo_shows_what_to_try() {
    let weir = Weir::command(&["demo", "127.0.0.1:0", "--cores", "1"]);
    let hello = weir.ask(get("/hello"));
    assert_eq!(hello.status(), 200);
    assert!(hello.text().contains("GET /hello"), "{}", hello.text());
    assert_eq!(weir.ask(get("/status?code=503")).status(), 503);
    assert_eq!(weir.ask(get("/big?bytes=1000000")).body.len(), 1_000_000);
    assert_eq!(weir.ask(post("/echo", "back")).text(), "back");
    // curl sends a large body only after 100 Continue.
    let mut patient = weir.connect();
    patient.send("POST /echo HTTP/1.1\r\nHost: weir.test\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n");
    assert_eq!(patient.message_head().status(), 100);
    patient.send("waited");
    assert_eq!(patient.response().text(), "waited");
    weir.log.wait("a curl line to try", |line| {
        line.contains("curl").then_some(())
    });
    weir.signal(Signal::INT);
    weir.wait_for("drained");
}

#[test]
fn the_driver_is_named_and_can_be_chosen() {
    let config = "[[route]]\nmatch = \"/*\"\nrespond = { status = 204 }\n";
    let weir = Weir::start(&format!("driver = \"monoio\"\n{config}"));
    assert!(weir.wait_for("io_uring: ").starts_with("monoio, "));
    assert_eq!(weir.ask(get("/")).status(), 204);
    weir.reload(config);
    weir.wait_for("reload: `driver` takes effect at the next start");
}

#[test]
fn several_cores_serve_side_by_side() {
    let endpoint = Endpoint::answering(|request| ok(request.target()));
    let weir = Weir::with("cores = 2", &[&endpoint]);
    let mut clients: Vec<_> = (0..40).map(|_| weir.connect()).collect();
    for round in 0..5 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(get(&format!("/{round}/{n}")));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.response().text(), format!("/{round}/{n}"));
        }
    }
    let by_core = |n: usize| weir.metric(&format!("weir_core_exchanges_total{{core=\"{n}\"}}"));
    eventually("all to be counted", || {
        (by_core(0) + by_core(1) == 200.0).then_some(())
    });
    assert!(
        by_core(0) > 0.0 && by_core(1) > 0.0,
        "{} on the first",
        by_core(0)
    );
}

#[test]
fn refused_heads_do_not_confuse_the_count_of_exchanges_under_way() {
    let (begun, has_begun) = channel();
    let endpoint = Endpoint::script(move |conn| {
        conn.request();
        begun.send(()).unwrap();
        conn.rest();
    });
    let weir = Weir::to(&[&endpoint]);
    for _ in 0..5 {
        assert_eq!(weir.ask("BAD\r\n\r\n").status(), 400);
    }
    let client = weir.connect();
    client.send(get("/"));
    has_begun.recv_timeout(DEADLINE).unwrap();
    assert_eq!(weir.metric("weir_core_exchanges_active{core=\"0\"}"), 1.0);
}
