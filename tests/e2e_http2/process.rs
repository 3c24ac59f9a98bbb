//! The process with HTTP/2: stop, reload and log, and common tools as clients.

use std::io::Write;
use std::process::{Command, Stdio};

use h2::Reason;
use http::Request;
use http::Response;
use hyper::body::Incoming;
use rustix::process::Signal;

use crate::e2e::{Conn, DEADLINE, Endpoint, Weir, get as get_text, ok};
use crate::peers::frames::{Listener, connect, respond};
use crate::peers::*;

fn get(path: &str) -> Request<()> {
    request("GET", path).body(()).unwrap()
}

#[test]
fn sigterm_lets_requests_finish_and_tells_clients_and_endpoints() {
    run(async {
        let listener = Listener::bind().await;
        let mut weir = Weir::start(&routed("", std::slice::from_ref(&listener.name), ""));
        let mut client = connect(weir.address).await;
        let idle = connect(weir.address).await;
        let before = client.send(get("/before"), true).0;
        let within_body = client.send(get("/within"), true).0;
        let mut endpoint = listener.accept().await;
        let (_, mut first) = endpoint.next().await;
        let (_, mut second) = endpoint.next().await;
        let mut answer = second.send_response(Response::new(()), false).unwrap();
        answer.send_data("part".into(), false).unwrap();
        let response = within(within_body).await.unwrap();
        weir.signal(Signal::TERM);
        weir.wait_for("draining");
        // Weir closes an idle connection at once in an orderly way.
        within(idle.task).await.unwrap().unwrap();
        respond(&mut first, 200, "finished");
        answer.send_data(" and all".into(), true).unwrap();
        let body = within(before).await.unwrap().into_body();
        assert_eq!(within(frames::read(body)).await.unwrap(), "finished");
        let body = within(frames::read(response.into_body())).await.unwrap();
        assert_eq!(body, "part and all");
        // The connection ends by the GOAWAY and without an error.
        drop(client.sender);
        within(client.task).await.unwrap().unwrap();
        assert!(endpoint.next_or_end().await.is_none());
        assert!(within(endpoint.task).await.unwrap().is_none());
        let ended = tokio::task::spawn_blocking(move || weir.wait().code());
        assert_eq!(within(ended).await.unwrap(), Some(0));
    });
}

#[test]
fn a_request_that_crosses_the_goaway_is_answered() {
    run(async {
        let listener = Listener::bind().await;
        let mut weir = Weir::start(&routed("", std::slice::from_ref(&listener.name), ""));
        let mut client = connect(weir.address).await;
        let held = client.send(get("/held"), true).0;
        let mut endpoint = listener.accept().await;
        let (_, mut first) = endpoint.next().await;
        weir.signal(Signal::TERM);
        weir.wait_for("draining");
        // This client has not read the GOAWAY yet.
        let crossing = client.send(get("/crossing"), true).0;
        respond(&mut endpoint.next().await.1, 200, "crossed");
        let body = within(crossing).await.unwrap().into_body();
        assert_eq!(within(frames::read(body)).await.unwrap(), "crossed");
        respond(&mut first, 200, "held");
        assert_eq!(within(held).await.unwrap().status(), 200);
        let ended = tokio::task::spawn_blocking(move || weir.wait().code());
        assert_eq!(within(ended).await.unwrap(), Some(0));
    });
}

#[test]
fn the_end_of_the_grace_period_breaks_off_what_is_left() {
    run(async {
        let listener = Listener::bind().await;
        let keys = "timeouts = { grace = \"500ms\" }";
        let mut weir = Weir::start(&routed(keys, std::slice::from_ref(&listener.name), ""));
        let mut client = connect(weir.address).await;
        let response = client.send(get("/"), true).0;
        let mut endpoint = listener.accept().await;
        let (_, mut send) = endpoint.next().await;
        let mut answer = send.send_response(Response::new(()), false).unwrap();
        answer.send_data("part".into(), false).unwrap();
        let body = within(response).await.unwrap().into_body();
        weir.signal(Signal::TERM);
        assert!(within(frames::read(body)).await.is_err(), "it looks whole");
        let ended = tokio::task::spawn_blocking(move || weir.wait().code());
        assert_eq!(within(ended).await.unwrap(), Some(0));
    });
}

#[test]
fn a_reload_is_for_new_requests_on_old_connections_too() {
    run(async {
        let old = Listener::bind().await;
        let weir = Weir::start(&routed("", std::slice::from_ref(&old.name), ""));
        let mut client = connect(weir.address).await;
        let under_way = client.send(get("/under-way"), true).0;
        let mut old = old.accept().await;
        let (_, mut send) = old.next().await;
        let new = Server::start(Protocol::Http2, async |_| answer("new")).await;
        weir.reload(&routed("", std::slice::from_ref(&new.name), ""));
        weir.wait_for("reloaded in");
        assert_eq!(client.ask(get("/later")).await, (200, "new".into()));
        respond(&mut send, 200, "old");
        let body = within(under_way).await.unwrap().into_body();
        assert_eq!(within(frames::read(body)).await.unwrap(), "old");
        // The plan no longer has the old endpoint, so its connection closes.
        assert!(old.next_or_end().await.is_none());
        assert!(within(old.task).await.unwrap().is_none());
        assert_eq!(client.ask(get("/again")).await, (200, "new".into()));
    });
}

#[test]
fn a_listener_that_goes_ends_its_connections_after_their_requests() {
    run(async {
        let endpoint = Listener::bind().await;
        let route = routed("", std::slice::from_ref(&endpoint.name), "");
        let weir = Weir::start(&format!("{route}[listen.\"127.0.0.1:0\"]\n"));
        let mut client = connect(weir.address).await;
        let under_way = client.send(get("/"), true).0;
        let mut endpoint = endpoint.accept().await;
        let (_, mut send) = endpoint.next().await;
        weir.reload(&format!("{route}[listen.\"127.0.0.3:0\"]\n"));
        weir.wait_for("reloaded in");
        respond(&mut send, 200, "finished");
        assert_eq!(within(under_way).await.unwrap().status(), 200);
        drop(client.sender);
        within(client.task).await.unwrap().unwrap();
    });
}

#[test]
fn a_line_of_the_log_has_all_figures() {
    for up in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let handler = async |request: Request<Incoming>| {
                use http_body_util::BodyExt;
                request.into_body().collect().await.unwrap();
                answer("five5")
            };
            let server = Server::start(up, handler).await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&server.name), ""));
            let mut client = Client::connect(Protocol::Http2, weir.address).await;
            let asked = request("PUT", "/a?b").body(Body::of("seven77")).unwrap();
            client.ask(asked).await;
            let entry = weir.entry("/a?b");
            for (name, value) in [
                ("version", "HTTP/2"),
                ("method", "PUT"),
                ("host", "weir.test"),
                ("client", "127.0.0.1"),
                ("route", "/*"),
                ("upstream", "up"),
                ("endpoint", &server.name),
                ("reason", ""),
            ] {
                assert_eq!(entry.text(name), value);
            }
            for (name, value) in [
                ("status", 200.0),
                ("bytes_in", 7.0),
                ("bytes_out", 5.0),
                ("attempts", 1.0),
            ] {
                assert_eq!(entry.number(name), value, "{name}");
            }
            for name in ["total_ms", "connect_ms", "first_byte_ms"] {
                assert!(entry.number(name) > 0.0, "{name} in {entry:?}");
            }
        });
    }
}

#[test]
fn a_listener_without_http2_refuses_prior_knowledge_in_http1() {
    let weir = Weir::start(
        "[listen.\"127.0.0.1:0\"]\nhttp2 = false\n[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n",
    );
    let response = weir.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(response.status(), 505);
    assert!(response.text().contains("version_not_supported"));
    assert_eq!(weir.ask(get_text("/")).text(), "here");
}

#[test]
fn a_listener_without_http2_offers_only_http1_by_alpn() {
    run(async {
        let (dir, tls) = (Weir::dir(), Tls::new());
        let (listen, _) = tls.files(&dir);
        let weir = Weir::start_in(
            &dir,
            &format!(
                "[listen.\"127.0.0.1:0\"]\nhttp2 = false\n{listen}\n[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n"
            ),
        );
        let stream = tls
            .connect_offering(&[b"h2", b"http/1.1"], weir.address)
            .await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut client = Client::connect_tls(Protocol::Http1, weir.address, &tls).await;
        let asked = request("GET", "/").body(Body::empty()).unwrap();
        assert_eq!(client.ask(asked).await.text(), "here");
    });
}

/// The preface may arrive in any pieces.
#[test]
fn prior_knowledge_is_understood_in_pieces() {
    let weir = Weir::start("[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n");
    for size in [1, 2, 3, 5, 17, 23] {
        let mut client = Conn::to(weir.address);
        client.send_split(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            size,
        );
        // Weir's SETTINGS come first.
        let head = client.take(9);
        assert_eq!(
            (head[3], &head[5..]),
            (4, &[0, 0, 0, 0][..]),
            "in pieces of {size}"
        );
    }
    let mut client = Conn::to(weir.address);
    client.send_split("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 1);
    assert_eq!(client.response().text(), "here");
}

/// A reverse proxy refuses CONNECT and a request in absolute-form that names two hosts.
#[test]
fn a_plain_connect_is_405_and_spares_the_connection() {
    run(async {
        let weir = Weir::start("[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n");
        let mut client = connect(weir.address).await;
        let connect = Request::builder().method("CONNECT").uri("weir.test:443");
        let (response, _stream) = client.send(connect.body(()).unwrap(), false);
        assert_eq!(within(response).await.unwrap().status(), 405);
        assert_eq!(client.ask(get("/")).await, (200, "here".into()));
    });
}

#[test]
fn a_client_that_resets_without_end_is_sent_away() {
    run(async {
        let endpoint = Endpoint::answering(|_| ok("served"));
        let weir = Weir::start(&routed("", std::slice::from_ref(&endpoint.name), ""));
        let mut client = connect(weir.address).await;
        let ended = tokio::time::timeout(DEADLINE, async {
            while std::future::poll_fn(|cx| client.sender.poll_ready(cx))
                .await
                .is_ok()
            {
                let Ok((_, mut stream)) = client.sender.send_request(get("/"), false) else {
                    break;
                };
                stream.send_reset(Reason::CANCEL);
                tokio::task::yield_now().await;
            }
            client.task.await.unwrap().unwrap_err()
        });
        let error = ended.await.expect("it is sent away");
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error}");
        assert_eq!(weir.ask(get_text("/")).text(), "served");
    });
}

/// Runs a tool with these arguments. Panics unless it succeeds.
#[track_caller]
fn tool(name: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}; scripts/setup installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The tool may exit before it has read all of its input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {said}{errors}"
    );
    said
}

#[track_caller]
fn curl(arguments: &[&str], input: &[u8]) -> String {
    let seconds = DEADLINE.as_secs().to_string();
    let always = ["-sS", "--noproxy", "*", "--max-time", &seconds];
    tool("curl", &[&always, arguments].concat(), input)
}

/// Echoes bodies on a separate thread while a tool runs.
fn echoing() -> Endpoint {
    Endpoint::answering(|request| ok(&request.text()))
}

#[test]
fn curl_gets_posts_and_uploads_over_http2() {
    let endpoint = echoing();
    let weir = Weir::to(&[&endpoint]);
    let url = format!("http://{}/a/path", weir.address);
    let h2 = "--http2-prior-knowledge";
    let shown = curl(&[h2, "-i", "-d", "a=b", &url], b"");
    assert!(
        shown.starts_with("HTTP/2 200 \r\n") && shown.ends_with("\r\na=b"),
        "{shown}"
    );
    let large: Vec<u8> = (0..3_000_000u32)
        .map(|n| b'a' + (n % 1_009 % 26) as u8)
        .collect();
    let text = String::from_utf8(large.clone()).unwrap();
    assert!(curl(&[h2, "--data-binary", "@-", &url], &large) == text);
    assert!(
        curl(&[h2, "-T", "-", &url], &large) == text,
        "of unknown length"
    );
    assert!(curl(&[h2, "-I", &url], b"").starts_with("HTTP/2 200"));
    // Weir ignores an upgrade to h2c and answers in HTTP/1.1.
    let shown = curl(&["--http2", "-i", "-d", "plain", &url], b"");
    assert!(
        shown.starts_with("HTTP/1.1 200 OK\r\n") && shown.ends_with("plain"),
        "{shown}"
    );
}

#[test]
fn curl_agrees_on_http2_over_tls() {
    let endpoint = echoing();
    let (dir, tls) = (Weir::dir(), Tls::new());
    let (listen, _) = tls.files(&dir);
    let keys = format!("[listen.\"127.0.0.1:0\"]\n{listen}");
    let config = routed(&keys, std::slice::from_ref(&endpoint.name), "");
    let weir = Weir::start_in(&dir, &config);
    let port = weir.address.port();
    let (url, at) = (
        format!("https://weir.test:{port}/"),
        format!("weir.test:{port}:127.0.0.1"),
    );
    let certificate = dir.join("cert.pem");
    let always = ["--cacert", certificate.to_str().unwrap(), "--resolve", &at];
    let over = |more: &[&str]| curl(&[&always, more, &[&*url]].concat(), b"");
    let version = ["-w", " %{http_version}", "-d", "hello"];
    assert_eq!(over(&version), "hello 2");
    assert_eq!(over(&[&["--http1.1"], &version[..]].concat()), "hello 1.1");
    // Two requests on one connection.
    let twice = over(&["-d", "x", "-w", "%{num_connects}", &url]);
    assert_eq!(twice, "x1x0");
}

#[test]
fn nghttp_and_h2load_are_served() {
    let endpoint = Endpoint::answering(|_| ok("served"));
    let weir = Weir::to(&[&endpoint]);
    let url = format!("http://{}/", weir.address);
    let shown = tool("nghttp", &["-v", "--no-dep", &url], b"");
    assert!(
        shown.contains(":status: 200") && shown.contains("served"),
        "{shown}"
    );
    let shown = tool("h2load", &["-n", "2000", "-c", "4", "-m", "50", &url], b"");
    assert!(
        shown.contains("2000 succeeded, 0 failed, 0 errored"),
        "{shown}"
    );
    assert!(shown.contains("status codes: 2000 2xx"), "{shown}");
}
