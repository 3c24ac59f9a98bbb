//! What becomes of clients and endpoints when descriptors, ports and sockets are short.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod e2e;

use std::os::unix::net::UnixListener;
use std::process::Command;

use e2e::*;

/// How many connections at once a start has said that it serves.
#[track_caller]
fn capacity(weir: &Weir) -> usize {
    let limits = weir.wait_for("limits: ");
    let count = limits.split(' ').next().unwrap();
    assert!(limits.contains("connections, limited by"), "{limits}");
    count.parse().unwrap()
}

#[test]
fn clients_beyond_the_descriptors_wait_and_nobody_is_refused() {
    let endpoint = Endpoint::answering(|_| ok("here"));
    // So few that each client may need one of its own.
    let weir = Weir::start_with_files(400, &route_to(&[&endpoint]));
    let most = capacity(&weir);
    assert!((50..200).contains(&most), "{most} of 400");
    let mut served: Vec<Conn> = (0..most).map(|_| weir.connect()).collect();
    for client in &mut served {
        client.send(get("/first"));
        assert_eq!(client.response().status(), 200);
    }
    // The next ones are in the kernel's queue: they are not accepted, not answered, and not turned away.
    let mut waiting: Vec<Conn> = (0..40).map(|_| weir.connect()).collect();
    waiting.iter().for_each(|client| client.send(get("/later")));
    for client in &mut served {
        client.send(get("/again"));
        assert_eq!(client.response().status(), 200);
    }
    assert!(!waiting.iter().any(Conn::has_news));
    // A few end, and as many of those come in.
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
fn cores_that_accept_at_the_same_moment_refuse_nobody() {
    let endpoint = Endpoint::answering(|_| ok("here"));
    let config = format!("cores = 2\n{}", route_to(&[&endpoint]));
    let weir = Weir::start_with_files(300, &config);
    let most = capacity(&weir);
    for _ in 0..5 {
        // All of them are in the kernel's queue when the cores go on, each with its request.
        let mut clients: Vec<Conn> = weir.while_stopped(|| {
            let clients: Vec<Conn> = (0..2 * most).map(|_| weir.connect()).collect();
            clients.iter().for_each(|client| client.send(get("/keep")));
            clients
        });
        // Everybody asks on until served twice, and makes room then.
        while !clients.is_empty() {
            let mut is_done: Vec<bool> = Vec::new();
            for client in &mut clients {
                let has_answer = client.has_news();
                if has_answer {
                    assert_eq!(client.response().status(), 200);
                }
                is_done.push(has_answer);
            }
            let mut is_done = is_done.into_iter();
            // They leave all at once, so that each core sees room at the same moment.
            weir.while_stopped(|| clients.retain(|_| !is_done.next().unwrap()));
        }
    }
}

#[test]
fn a_connect_without_a_descriptor_is_no_fault_of_the_endpoint() {
    let endpoints = [(); 2].map(|()| Endpoint::answering(|_| ok("here")));
    let weir = Weir::with("", &[&endpoints[0], &endpoints[1]]);
    let mut client = weir.connect();
    // Accepted, and known to be.
    client.send("GET /starved HTTP/1.1\r\n");
    eventually("the connection is open", || {
        let page = weir.admin("/metrics").text();
        let mut lines = page.lines();
        let is_open =
            |line: &str| line.starts_with("weir_connections_open{") && line.ends_with(" 1");
        lines.any(is_open).then_some(())
    });
    // What is open stays so.
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
    // Others take what is left between the numbers in use, so that the next descriptor is one too many.
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
}

#[test]
fn what_the_system_says_of_a_connect_is_told_apart() {
    let dir = Weir::dir();
    let socket = |name: &str| format!("unix:{}", dir.join(name).display());
    // Bound and closed: the file is there, and nobody behind it.
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
        ("/nowhere", "255.255.255.255:80".to_owned(), "connect_", "E"),
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
fn a_default_start_has_nothing_to_warn_of() {
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
