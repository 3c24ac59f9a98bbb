//! The process from the outside: commands and their exit codes, signals, reload, logs, the admin listener.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::process::Signal;

use process::{
    Backend, Client, PATIENCE, Scratch, Weir, body, edge, exchange, get, wait_for, weir,
};

#[test]
fn the_demo_answers_and_ends() {
    let mut weir = Weir::start(&["demo", "127.0.0.1:0", "--cores", "1"]);
    let at = weir.address();
    let admin = weir.admin();
    let answers = [get(at, "/hello"), get(at, "/hello")];
    for (name, answer) in ["one", "two"]
        .into_iter()
        .zip(["x-demo-endpoint: one", "x-demo-endpoint: two"])
    {
        let answer = answers
            .iter()
            .find(|text| text.contains(answer))
            .expect("both in turn");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains(&format!("Hello from endpoint {name}")),
            "{answer}"
        );
        assert!(answer.contains("GET /hello"), "{answer}");
    }
    let big = get(at, "/big?bytes=300000");
    assert_eq!(big.split_once("\r\n\r\n").unwrap().1.len(), 300_000);
    assert!(get(at, "/status?code=503").starts_with("HTTP/1.1 503 "));
    wait_for("the metrics", || {
        let page = get(admin, "/metrics");
        page.contains("weir_route_exchanges_total{route=\"/*\",class=\"5xx\"} 1\n")
            && page.contains("weir_route_exchanges_total{route=\"/*\",class=\"2xx\"} 3\n")
    });
    weir.signal(Signal::INT);
    assert_eq!(weir.wait().code(), Some(0));
    let said = weir.stdout();
    assert!(
        said.contains(&format!("curl -i http://{at}/hello")),
        "{said}"
    );
    assert_eq!(said.matches("\" HTTP/1.1 200 ").count(), 3, "{said}");
}

#[test]
fn proxy_needs_no_file() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let (one_at, two_at) = (one.address.to_string(), two.address.to_string());
    let mut weir = Weir::start(&["proxy", "127.0.0.1:0", &one_at, &two_at, "--cores", "1"]);
    let at = weir.address();
    let mut answers: Vec<_> = (0..4).map(|_| body(&get(at, "/"))).collect();
    answers.sort();
    assert_eq!(answers, ["one", "one", "two", "two"]);
    weir.signal(Signal::HUP);
    weir.line("there is no file to reload");
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn a_reload_reaches_old_connections_and_a_bad_file_changes_nothing() {
    let scratch = Scratch::new("reload");
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let file = scratch.path("edge.toml");
    fs::write(&file, edge(one.address, "")).unwrap();
    let mut weir = Weir::start(&["run", file.to_str().unwrap()]);
    let (at, admin) = (weir.address(), weir.admin());
    let mut old = Client::connect(at);
    assert_eq!(old.get("/"), "one");

    fs::write(&file, "[listn]\n").unwrap();
    weir.signal(Signal::HUP);
    weir.line("reload failed, nothing has changed");
    weir.line("did you mean `listen`?");
    assert_eq!(old.get("/"), "one");
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(admin, "/healthz?verbose").contains("did you mean `listen`?"));
    assert!(get(admin, "/metrics").contains("\nweir_reload_failed_total 1\n"));

    let failing = "[[test]]\nrequest = \"GET http://h/\"\nstatus = 404\n";
    fs::write(&file, edge(two.address, failing)).unwrap();
    weir.signal(Signal::HUP);
    wait_for("the second refusal", || {
        get(admin, "/metrics").contains("\nweir_reload_failed_total 2\n")
    });
    assert_eq!(old.get("/"), "one");

    // A listener that somebody else has: nothing of the file takes effect.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[listen.\"{}\"]\n", taken.local_addr().unwrap());
    fs::write(&file, edge(two.address, &more)).unwrap();
    weir.signal(Signal::HUP);
    weir.line("the address is in use");
    assert_eq!(old.get("/"), "one");

    drop(taken);
    weir.signal(Signal::HUP);
    let added = weir.line("reload: listening on ");
    weir.line("plan 2: 2 listeners");
    assert_eq!(old.get("/"), "two");
    let added: SocketAddr = added.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert_eq!(body(&get(added, "/")), "two");

    fs::write(&file, edge(two.address, "")).unwrap();
    weir.signal(Signal::HUP);
    weir.line("plan 3: 1 listener,");
    wait_for("the end of the listener", || {
        TcpStream::connect(added).is_err()
    });
    assert_eq!(old.get("/"), "two");
    let health = get(admin, "/healthz?verbose");
    assert!(
        health.contains("2 reloads done, 3 failed") && !health.contains("last reload"),
        "{health}"
    );
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait().code(), Some(0));
}

#[test]
fn a_drain_finishes_what_is_under_way() {
    let scratch = Scratch::new("drain");
    let backend = Backend::start("one");
    let file = scratch.path("edge.toml");
    fs::write(&file, edge(backend.address, "")).unwrap();
    let mut weir = Weir::start(&["run", file.to_str().unwrap()]);
    let (at, admin) = (weir.address(), weir.admin());
    let mut idle = Client::connect(at);
    assert_eq!(idle.get("/"), "one");
    let slow = std::thread::spawn(move || get(at, "/wait"));
    backend.wait_for_guest();
    weir.signal(Signal::TERM);
    weir.line("SIGTERM: draining");
    wait_for("the end of listening", || TcpStream::connect(at).is_err());
    let health = get(admin, "/healthz");
    assert!(
        health.starts_with("HTTP/1.1 503 ") && health.ends_with("draining\n"),
        "{health}"
    );
    assert_eq!(
        idle.stream.read(&mut [0; 16]).unwrap(),
        0,
        "an idle connection is closed"
    );
    assert!(weir.is_alive());
    backend.release();
    let answer = slow.join().unwrap();
    assert_eq!(body(&answer), "one");
    assert!(
        answer.to_ascii_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert_eq!(weir.wait().code(), Some(0));
    weir.line("drained");
}

#[test]
fn a_second_signal_ends_at_once() {
    let scratch = Scratch::new("second");
    let backend = Backend::start("one");
    let file = scratch.path("edge.toml");
    fs::write(&file, edge(backend.address, "")).unwrap();
    let mut weir = Weir::start(&["run", file.to_str().unwrap()]);
    let at = weir.address();
    let slow = std::thread::spawn(move || {
        let mut client = Client::connect(at);
        client.send("/wait");
        let mut rest = Vec::new();
        // Reset or closed, but over.
        let _ = client.stream.read_to_end(&mut rest);
    });
    backend.wait_for_guest();
    weir.signal(Signal::TERM);
    weir.line("SIGTERM: draining");
    weir.signal(Signal::INT);
    weir.line("SIGINT again: ending at once");
    assert_eq!(weir.wait().code(), Some(0));
    slow.join().unwrap();
    backend.release();
}

#[test]
fn logs_are_opened_anew_on_request() {
    let scratch = Scratch::new("logs");
    let backend = Backend::start("one");
    let (file, log) = (scratch.path("edge.toml"), scratch.path("access.log"));
    let with_log = |path: &Path| format!("access_log = {path:?}\n{}", edge(backend.address, ""));
    fs::write(&file, with_log(&log)).unwrap();
    let mut weir = Weir::start(&["run", file.to_str().unwrap()]);
    let at = weir.address();
    let lines = |path: &Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    get(at, "/1");
    wait_for("the first line", || lines(&log) == 1);
    for (turn, signal) in [Signal::USR1, Signal::HUP].into_iter().enumerate() {
        let moved = scratch.path(&format!("access.log.{turn}"));
        fs::rename(&log, &moved).unwrap();
        weir.signal(signal);
        wait_for("the new file", || log.exists());
        get(at, "/2");
        wait_for("the next line", || lines(&log) == 1);
        assert_eq!(lines(&moved), 1);
    }
    let other = scratch.path("other.log");
    fs::write(&file, with_log(&other)).unwrap();
    weir.signal(Signal::HUP);
    weir.line("plan 3:");
    get(at, "/3");
    wait_for("a line in the other file", || lines(&other) == 1);
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait().code(), Some(0));
    assert_eq!(lines(&log), 1);
    assert!(
        fs::read_to_string(&other)
            .unwrap()
            .contains("\"path\":\"/3\"")
    );
}

#[test]
fn an_address_in_use_is_said_and_left_alone() {
    let backend = Backend::start("one");
    let endpoint = backend.address.to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = weir(&["proxy", &address, &endpoint]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains(&format!(
            "cannot listen on {address}: the address is in use"
        )),
        "{said}"
    );
    // Another Weir shares its port among its own cores, but not with a stranger.
    let first = Weir::start(&["proxy", "127.0.0.1:0", &endpoint]);
    let second = weir(&["proxy", &first.address().to_string(), &endpoint]);
    assert_eq!(second.status.code(), Some(1));
    assert!(body(&get(first.address(), "/")) == "one");
}

#[test]
fn a_unix_socket_of_the_dead_is_replaced_and_one_of_the_living_is_not() {
    let scratch = Scratch::new("unix");
    let backend = Backend::start("one");
    let endpoint = backend.address.to_string();
    let path = scratch.path("weir.sock");
    let listen = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    let mut first = Weir::start(&["proxy", &listen, &endpoint, "--cores", "2"]);
    first.line("listening on unix:");
    for _ in 0..4 {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(body(&answer), "one");
    }
    let second = weir(&["proxy", &listen, &endpoint]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process listens there"));
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    let third = weir(&["proxy", &listen, &endpoint]);
    assert_eq!(third.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn commands_tell_by_their_exit_code() {
    let scratch = Scratch::new("codes");
    let (good, bad) = (scratch.path("good.toml"), scratch.path("bad.toml"));
    fs::write(&good, edge("127.0.0.1:1".parse().unwrap(), "")).unwrap();
    fs::write(&bad, "[listn]\n").unwrap();
    let untrue = scratch.path("untrue.toml");
    let test = "[[test]]\nrequest = \"GET http://h/\"\nstatus = 404\n";
    fs::write(&untrue, edge("127.0.0.1:1".parse().unwrap(), test)).unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let untrue = untrue.to_str().unwrap();
    for (args, code, on_stdout, on_stderr) in [
        (
            vec!["check", good],
            0,
            "good.toml: ok; 1 listener, 1 route, 1 upstream\n",
            "",
        ),
        (vec!["check", bad], 3, "", "did you mean `listen`?"),
        (
            vec!["check", "--json", bad],
            3,
            "\"code\": \"unknown-key\"",
            "",
        ),
        (vec!["check", "--json", good], 0, "[]", ""),
        (vec!["check", untrue], 3, "", "untrue.toml:10\n"),
        (vec!["check", "--json", untrue], 3, "\"line\": 10", ""),
        (
            vec!["check", "--json", "/nonexistent"],
            3,
            "cannot read /nonexistent",
            "",
        ),
        (vec!["run", bad], 3, "", "did you mean `listen`?"),
        (vec!["explain", good, "GET", "http://h/x"], 0, "app", ""),
        (
            vec!["schema"],
            0,
            "https://json-schema.org/draft/2020-12/schema",
            "",
        ),
        (vec!["reference"], 0, "first_byte", ""),
        (vec!["--help"], 0, "Exit codes:", ""),
        (
            vec!["--version"],
            0,
            concat!("weir ", env!("CARGO_PKG_VERSION")),
            "",
        ),
        (vec!["rnu"], 2, "", "did you mean \"run\"?"),
        (vec![], 2, "", "a command is missing"),
    ] {
        let output = weir(&args);
        if args.contains(&"--json") {
            let json = String::from_utf8_lossy(&output.stdout);
            assert!(json.parse::<tinyjson::JsonValue>().is_ok(), "{json}");
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}\n{said}{complained}"
        );
        assert!(said.contains(on_stdout), "{args:?}\n{said}");
        assert!(complained.contains(on_stderr), "{args:?}\n{complained}");
        assert_eq!(
            complained.is_empty(),
            on_stderr.is_empty(),
            "{args:?}\n{complained}"
        );
    }
}

#[test]
fn the_admin_listener_is_strict() {
    let scratch = Scratch::new("admin");
    let file = scratch.path("edge.toml");
    fs::write(&file, edge("127.0.0.1:1".parse().unwrap(), "")).unwrap();
    let mut weir = Weir::start(&["run", file.to_str().unwrap()]);
    let admin = weir.admin();
    assert!(get(admin, "/nothing").starts_with("HTTP/1.1 404 "));
    let post = exchange(
        admin,
        "POST /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    assert!(
        post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"),
        "{post}"
    );
    let plan = get(admin, "/plan");
    assert!(plan.contains("content-type: application/json"), "{plan}");
    let plan: tinyjson::JsonValue = body(&plan).parse().unwrap();
    assert_eq!(plan["epoch"].get::<f64>(), Some(&1.0));
    assert_eq!(
        plan["upstreams"][0]["endpoints"][0]["address"]
            .get::<String>()
            .unwrap(),
        "127.0.0.1:1"
    );
    // It moves with a reload.
    let text = fs::read_to_string(&file).unwrap();
    let socket = scratch.path("admin.sock");
    fs::write(
        &file,
        text.replace(
            "admin = \"127.0.0.2:0\"",
            &format!("admin = \"unix:{}\"", socket.display()),
        ),
    )
    .unwrap();
    weir.signal(Signal::HUP);
    weir.line("plan 2:");
    wait_for("the end of the old one", || {
        TcpStream::connect(admin).is_err()
    });
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(body(&answer), "serving\n");
    weir.signal(Signal::TERM);
    assert_eq!(weir.wait().code(), Some(0));
    assert!(!socket.exists());
}
