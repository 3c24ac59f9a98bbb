//! Clients and endpoints when descriptors, ports or sockets run short.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod e2e;

use std::os::unix::net::UnixListener;
use std::process::Command;

use e2e::*;

/// The number of connections that Weir announced at its start.
#[track_caller]
fn capacity(weir: &Weir) -> usize {
    let limits = weir.wait_for("limits: ");
    let count = limits.split(' ').next().unwrap();
    assert!(limits.contains("connections, limited by"), "{limits}");
    count.parse().unwrap()
}

#[test]
fn clients_without_a_free_descriptor_wait_and_none_is_refused() {
    let endpoint = Endpoint::answering(|_| ok("here"));
    // Few enough that each client may need a connection to the endpoint of its own.
    let weir = Weir::start_with_files(400, &route_to(&[&endpoint]));
    let most = capacity(&weir);
    assert!((50..200).contains(&most), "{most} of 400");
    let mut served: Vec<Conn> = (0..most).map(|_| weir.connect()).collect();
    for client in &mut served {
        client.send(get("/first"));
        assert_eq!(client.response().status(), 200);
    }
    // Further clients are in the kernel's queue: not accepted, not answered, not refused.
    let mut waiting: Vec<Conn> = (0..40).map(|_| weir.connect()).collect();
    waiting.iter().for_each(|client| client.send(get("/later")));
    for client in &mut served {
        client.send(get("/again"));
        assert_eq!(client.response().status(), 200);
    }
    assert!(!waiting.iter().any(Conn::is_readable));
    // As some clients leave, as many of the waiting ones are served.
    served.truncate(most - 40);
    for client in &mut waiting {
        assert_eq!(client.response().status(), 200);
    }
    let metrics = weir.admin("/metrics").text();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let is_failure = line.starts_with("weir_upstream_reasons_total")
            || line.starts_with("weir_endpoint_failures_total")
            || line.starts_with("weir_accept_errors_total");
        assert!(!is_failure || line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn cores_that_accept_at_the_same_moment_refuse_no_client() {
    let endpoint = Endpoint::answering(|_| ok("here"));
    let config = format!("cores = 2\n{}", route_to(&[&endpoint]));
    let weir = Weir::start_with_files(300, &config);
    let most = capacity(&weir);
    for _ in 0..5 {
        // All clients are in the kernel's queue, with their requests, when the cores continue.
        let mut clients: Vec<Conn> = weir.while_stopped(|| {
            let clients: Vec<Conn> = (0..2 * most).map(|_| weir.connect()).collect();
            clients.iter().for_each(|client| client.send(get("/keep")));
            clients
        });
        // Every client is served twice and then makes room.
        while !clients.is_empty() {
            let mut is_done: Vec<bool> = Vec::new();
            for client in &mut clients {
                let has_answer = client.is_readable();
                if has_answer {
                    assert_eq!(client.response().status(), 200);
                }
                is_done.push(has_answer);
            }
            let mut is_done = is_done.into_iter();
            // All leave at once, so that each core sees room at the same moment.
            weir.while_stopped(|| clients.retain(|_| !is_done.next().unwrap()));
        }
    }
}

#[test]
fn a_connect_without_a_descriptor_blames_no_endpoint() {
    let endpoints = [(); 2].map(|()| Endpoint::answering(|_| ok("here")));
    let weir = Weir::with("", &[&endpoints[0], &endpoints[1]]);
    let mut client = weir.connect();
    // Weir has accepted the clients and counted them.
    client.send("GET /starved HTTP/1.1\r\n");
    eventually("the connection is open", || {
        let page = weir.admin("/metrics").text();
        let mut lines = page.lines();
        let is_open =
            |line: &str| line.starts_with("weir_connections_open{") && line.ends_with(" 1");
        lines.any(is_open).then_some(())
    });
    // Open connections stay open.
    weir.limit_files(3);
    client.send("Host: weir.test\r\n\r\n");
    client
        .response()
        .expect_refusal(503, "no_descriptors", "connection_limit_reached");
    let entry = weir.entry("/starved");
    assert_eq!(entry.text("errno"), "EMFILE");
    assert_eq!(
        entry.number("attempts"),
        1.0,
        "another endpoint helps nothing"
    );
    weir.limit_files(1_000);
    client.send(get("/fed"));
    assert_eq!(client.response().status(), 200);
    for line in weir.admin("/metrics").text().lines() {
        if line.starts_with("weir_endpoint_failures_total") {
            assert!(line.ends_with(" 0"), "{line}");
        }
    }
}

#[test]
fn unused_connections_to_endpoints_make_room_for_new_ones() {
    let endpoints = [(); 2].map(|()| Endpoint::answering(|_| ok("here")));
    let routes = format!(
        "[upstream.one]\nservers = [{:?}]\n[upstream.two]\nservers = [{:?}]\n\
         [[route]]\nmatch = \"/one\"\nto = \"one\"\n[[route]]\nmatch = \"/two\"\nto = \"two\"\n",
        endpoints[0].name, endpoints[1].name
    );
    let weir = Weir::start(&routes);
    let mut client = weir.connect();
    client.send(get("/one"));
    assert_eq!(client.response().status(), 200);
    // Other clients take the free descriptors, so that the next one exceeds the limit.
    let mut others = Vec::new();
    eventually("no number is left out", || {
        let files = weir.open_files();
        if files.iter().zip(0..).all(|(file, number)| *file == number) {
            weir.limit_files(files.len() as u64);
            return Some(());
        }
        others.push(weir.connect());
        None
    });
    client.send(get("/two"));
    assert_eq!(client.response().status(), 200);
    // The idle connection to the first endpoint made room, and no client had to.
    assert!(!others.iter().any(Conn::is_readable));
}

#[test]
fn each_connect_error_is_reported_as_what_it_is() {
    let dir = Weir::dir();
    let socket = |name: &str| format!("unix:{}", dir.join(name).display());
    // Bound and closed: the socket file exists, and nothing listens.
    drop(UnixListener::bind(dir.join("left")).unwrap());
    std::fs::write(dir.join("file"), "").unwrap();
    let cases = [
        ("/missing", socket("missing"), "connect_no_socket", "ENOENT"),
        ("/left", socket("left"), "connect_failed", "ECONNREFUSED"),
        (
            "/refused",
            "127.0.0.1:1".to_owned(),
            "connect_failed",
            "ECONNREFUSED",
        ),
        // The broadcast address of the loopback interface.
        ("/nowhere", "127.255.255.255:80".to_owned(), "connect_", "E"),
    ];
    let mut config = String::new();
    for (path, server, ..) in &cases {
        let name = &path[1..];
        config += &format!(
            "[upstream.{name}]\nservers = [{server:?}]\n[[route]]\nmatch = {path:?}\nto = {name:?}\n"
        );
    }
    let weir = Weir::start_in(&dir, &config);
    for (path, _, reason, errno) in cases {
        let answer = weir.ask(get(path));
        assert_eq!(answer.status(), 502, "{path}");
        let entry = weir.entry(path);
        assert!(entry.text("reason").starts_with(reason), "{entry:?}");
        assert!(entry.text("errno").starts_with(errno), "{entry:?}");
    }
}

#[test]
fn a_default_start_logs_no_warning() {
    let weir = Weir::start("[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n");
    weir.ask(get("/"));
    let said = weir.stderr.so_far();
    assert!(
        said.iter().any(|line| line.contains("limits: ")),
        "{said:?}"
    );
    assert!(!said.iter().any(|line| line.contains(" warn ")), "{said:?}");
}

#[test]
fn check_and_explain_say_what_the_machine_allows() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    let text = "[listen.\"127.0.0.1:80\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n";
    std::fs::write(&file, text).unwrap();
    let run = |arguments: &[&str]| {
        let run = "ulimit -n 1024; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", run, env!("CARGO_BIN_EXE_weir")]);
        let out = command.args(arguments).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let file = file.to_str().unwrap();
    for said in [
        run(&["check", file]),
        run(&["explain", file, "GET", "http://a.test/"]),
    ] {
        assert!(said.contains("limited by 1024 open files"), "{said}");
        assert!(said.contains("of memory per core"), "{said}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
