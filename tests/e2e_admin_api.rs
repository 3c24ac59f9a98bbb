//! The admin API: who may use it, and what changes at run time do to requests.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::spawn;

use e2e::*;
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-24-characters";

/// A Weir with a token, and its files.
fn start(config: &str) -> Weir {
    let dir = Weir::dir();
    fs::write(dir.join("token"), format!("{TOKEN}\n")).unwrap();
    Weir::start_in(&dir, &with_token(config))
}

fn with_token(config: &str) -> String {
    format!("admin = {{ address = \"127.0.0.2:0\", token_file = \"token\" }}\n{config}")
}

/// An answer of the API: its status and its body.
fn answered(message: &Message) -> (u16, Value) {
    let body = match message.body.is_empty() {
        true => Value::Null,
        false => {
            assert_eq!(message.field("Content-Type"), Some("application/json"));
            serde_json::from_slice(&message.body).expect("JSON")
        }
    };
    (message.status(), body)
}

/// Sends a request to the API with these fields.
fn send(conn: &mut Conn, method: &str, path: &str, fields: &str, body: &str) -> Message {
    let length = body.len();
    conn.send(format!(
        "{method} {path} HTTP/1.1\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ));
    conn.response()
}

fn call(weir: &Weir, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let fields = format!(
        "Host: {}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n",
        weir.admin
    );
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    answered(&send(
        &mut Conn::to(weir.admin),
        method,
        path,
        &fields,
        &body,
    ))
}

fn read(weir: &Weir, path: &str) -> Value {
    let (status, body) = call(weir, "GET", path, &Value::Null);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn endpoint_path(endpoint: &Endpoint) -> String {
    format!("/api/upstreams/up/endpoints/{}", endpoint.name)
}

fn patch(weir: &Weir, endpoint: &Endpoint, change: &Value) -> Value {
    let (status, body) = call(weir, "PATCH", &endpoint_path(endpoint), change);
    assert_eq!(status, 200, "{body}");
    body
}

/// The endpoints that answer `count` requests.
fn answering(weir: &Weir, count: usize) -> BTreeSet<String> {
    let answers = (0..count).map(|_| {
        let answer = weir.ask(get("/"));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.text()
    });
    answers.collect()
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn over_tcp_a_token_an_address_as_host_and_the_own_origin_are_needed() {
    let endpoint = Endpoint::answering(|_| ok("a"));
    let weir = start(&route_to(&[&endpoint]));
    let host = format!("Host: {}\r\n", weir.admin);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let wrong = "Authorization: Bearer a-token-of-24-characterS\r\n";
    let origin = format!("Origin: http://{}\r\n", weir.admin);
    for (status, code, fields) in [
        (200, "", format!("{host}{token}")),
        (200, "", format!("Host: localhost\r\n{token}")),
        (200, "", format!("{host}{token}{origin}")),
        (401, "token_wrong", host.clone()),
        (401, "token_wrong", format!("{host}{wrong}")),
        (401, "token_wrong", format!("{host}{token}{token}")),
        (403, "host_denied", format!("Host: evil.example\r\n{token}")),
        (
            403,
            "host_denied",
            format!("Host: 127.0.0.2.nip.io:1\r\n{token}"),
        ),
        (
            403,
            "origin_denied",
            format!("{host}{token}Origin: http://evil.example\r\n"),
        ),
        (
            403,
            "origin_denied",
            format!("{host}{token}Origin: null\r\n"),
        ),
    ] {
        for path in ["/api", "/api/plan", "/api/upstreams"] {
            let answer = send(&mut Conn::to(weir.admin), "GET", path, &fields, "");
            let challenge = answer.field("WWW-Authenticate");
            assert_eq!(challenge, (status == 401).then_some("Bearer"));
            let (found, body) = answered(&answer);
            assert_eq!(found, status, "{fields}");
            if status != 200 {
                assert_eq!(body["error"]["code"], code);
            }
        }
    }
    // The log says so once, not for each.
    weir.wait_for("refused 1 request without the right token, the last from 127.0.0.1");
    // Metrics and health stay open, under any host name.
    for path in ["/metrics", "/healthz", "/readyz", "/plan"] {
        assert_eq!(weir.admin(path).status(), 200, "{path}");
    }
}

#[test]
fn over_tcp_the_api_does_not_exist_without_a_token_nor_for_other_clients() {
    let weir = Weir::start("[[route]]\nmatch = \"/*\"\nrespond = 200\n");
    let (status, body) = call(&weir, "GET", "/api/plan", &Value::Null);
    assert_eq!((status, &body["error"]["code"]), (404, &json!("no_token")));
    let dir = Weir::dir();
    fs::write(dir.join("token"), TOKEN).unwrap();
    let admin = "{ address = \"127.0.0.2:0\", token_file = \"token\", allow = \"127.0.0.7\" }";
    let weir = Weir::start_in(
        &dir,
        &format!("admin = {admin}\n[[route]]\nmatch = \"/*\"\nrespond = 200\n"),
    );
    let (status, body) = call(&weir, "GET", "/api/plan", &Value::Null);
    assert_eq!(
        (status, &body["error"]["code"]),
        (403, &json!("client_denied"))
    );
    let fields = format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n");
    let mut allowed = Conn::from_to(([127, 0, 0, 7], 0).into(), weir.admin);
    let answer = send(&mut allowed, "GET", "/api/plan", &fields, "");
    assert_eq!(answer.status(), 200);
}

#[test]
fn over_a_unix_socket_its_mode_decides() {
    let dir = Weir::dir();
    let socket = dir.join("admin.sock");
    let (file, listener) = (dir.join("weir.toml"), free_address("127.0.0.1"));
    let text = format!(
        "cores = 1\nadmin = \"unix:{}\"\n[listen.\"{listener}\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"x\"\n",
        socket.display()
    );
    fs::write(&file, &text).unwrap();
    let _weir = Weir::command(&["run", file.to_str().unwrap()]);
    eventually("the socket", || {
        fs::metadata(&socket).ok().map(|it| {
            assert_eq!(it.permissions().mode() & 0o777, 0o660);
        })
    });
    // A host name and an origin do no harm: a browser cannot reach the socket.
    let fields = "Host: any.example\r\nOrigin: http://any.example\r\n";
    let answer = send(
        &mut Conn::to_unix(&socket),
        "GET",
        "/api/upstreams",
        fields,
        "",
    );
    assert_eq!(answered(&answer), (200, json!([])));
    let address = format!("unix:{}", socket.display());
    let (code, output) = run_weir(&["status", "--admin", &address]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains(": ready") && output.contains("changed at run time: nothing"));
    let (code, output) = run_weir(&["upstream", "list", "--file", as_text(&file)]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.starts_with("UPSTREAM"), "{output}");
    // The commands find the instance by a file that has become wrong meanwhile.
    for mistake in ["[upstream.a]\nservers = []\n", "[listen\n"] {
        fs::write(&file, format!("{text}{mistake}")).unwrap();
        let (code, output) = run_weir(&["status", "--file", as_text(&file)]);
        assert_eq!(code, Some(0), "{output}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Asserts that a request is refused with this status and code.
#[track_caller]
fn expect_refused(
    weir: &Weir,
    method: &str,
    path: &str,
    body: &Value,
    (status, code): (u16, &str),
) {
    let (found, answer) = call(weir, method, path, body);
    let found = (found, answer["error"]["code"].as_str());
    assert_eq!(found, (status, Some(code)), "{method} {path}: {answer}");
}

const ENDPOINTS: &str = "/api/upstreams/up/endpoints";

#[test]
fn what_does_not_exist_is_not_found() {
    let a = Endpoint::answering(|_| ok("a"));
    let weir = start(&route_to(&[&a]));
    let unknown = format!("{ENDPOINTS}/10.0.0.9:1");
    let drain = json!({ "state": "drain" });
    for (method, path, body, refusal) in [
        ("GET", "/api/nothing", &Value::Null, (404, "not_found")),
        (
            "GET",
            "/api/upstreams/none",
            &Value::Null,
            (404, "not_found"),
        ),
        ("GET", &unknown, &Value::Null, (404, "not_found")),
        ("PATCH", &unknown, &drain, (404, "not_found")),
        ("DELETE", &unknown, &Value::Null, (404, "not_found")),
        ("PUT", ENDPOINTS, &Value::Null, (405, "method")),
        ("GET", "/api/reload", &Value::Null, (405, "method")),
    ] {
        expect_refused(&weir, method, path, body, refusal);
    }
}

#[test]
fn what_cannot_be_changes_nothing() {
    let (a, b) = (
        Endpoint::answering(|_| ok("a")),
        Endpoint::answering(|_| ok("b")),
    );
    let weir = start(&route_to(&[&a]));
    for (body, refusal) in [
        (json!({ "address": a.name }), (409, "exists")),
        (
            json!({ "address": format!("http://{}", a.name) }),
            (409, "exists"),
        ),
        (json!({ "address": "app.internal:80" }), (422, "invalid")),
        (json!({ "address": "x" }), (422, "invalid")),
        (
            json!({ "address": "https://10.0.0.9:443" }),
            (422, "invalid"),
        ),
        (json!({ "weight": 1 }), (422, "invalid")),
        (
            json!({ "address": b.name, "weight": 65536 }),
            (422, "invalid"),
        ),
        (json!({ "address": b.name, "wieght": 1 }), (422, "invalid")),
        (
            json!({ "address": "x".repeat(65 * 1024) }),
            (413, "body_too_large"),
        ),
    ] {
        expect_refused(&weir, "POST", ENDPOINTS, &body, refusal);
    }
    let of_a = endpoint_path(&a);
    for body in [
        json!({ "state": "off" }),
        json!({ "weight": -1 }),
        json!({ "weight": 65536 }),
        json!({ "persist": true }),
        json!({}),
    ] {
        expect_refused(&weir, "PATCH", &of_a, &body, (422, "invalid"));
    }
    let path = format!("{of_a}?persist=maybe");
    expect_refused(&weir, "DELETE", &path, &Value::Null, (422, "invalid"));
    let asked = json!({ "method": "GET", "url": "/x" });
    expect_refused(&weir, "POST", "/api/explain", &asked, (422, "invalid"));
    assert_eq!(read(&weir, "/api/changes"), json!([]));
    assert_eq!(answering(&weir, 4), named(&["a"]));
}

#[test]
fn a_body_must_be_json_and_say_so() {
    let (a, b) = (
        Endpoint::answering(|_| ok("a")),
        Endpoint::answering(|_| ok("b")),
    );
    let weir = start(&route_to(&[&a]));
    let endpoints = "/api/upstreams/up/endpoints";
    let of_a = endpoint_path(&a);
    let fields = format!(
        "Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    );
    for body in ["", "{", "{\"address\":}", "nonsense"] {
        let answer = send(&mut Conn::to(weir.admin), "POST", endpoints, &fields, body);
        let (status, answer) = answered(&answer);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("bad_json"))
        );
    }
    let body = json!({ "address": b.name }).to_string();
    for fields in [
        fields.replace("application/json", "text/plain"),
        fields.replace("Content-Type: application/json\r\n", ""),
    ] {
        let answer = send(&mut Conn::to(weir.admin), "POST", endpoints, &fields, &body);
        assert_eq!(answered(&answer).0, 415);
    }
    let refused = send(&mut Conn::to(weir.admin), "PUT", &of_a, &fields, "");
    assert_eq!(refused.field("Allow"), Some("GET, PATCH, DELETE"));
    assert_eq!(read(&weir, "/api/changes"), json!([]));
    assert_eq!(answering(&weir, 4), named(&["a"]));
}

#[test]
fn endpoints_are_added_drained_weighted_and_removed() {
    let (a, b) = (
        Endpoint::answering(|_| ok("a")),
        Endpoint::answering(|_| ok("b")),
    );
    let weir = start(&route_to(&[&a]));
    let endpoints = "/api/upstreams/up/endpoints";
    let (status, added) = call(&weir, "POST", endpoints, &json!({ "address": b.name }));
    assert_eq!(status, 201, "{added}");
    let wanted = json!({
        "address": b.name, "weight": 1, "state": "ready", "healthy": true, "ejected": false,
        "in_flight": 0, "connections": 0,
    });
    assert_eq!(added, wanted);
    assert_eq!(answering(&weir, 4), named(&["a", "b"]));
    let drained = patch(&weir, &a, &json!({ "state": "drain" }));
    assert_eq!(
        (&drained["state"], &drained["connections"]),
        (&json!("drain"), &json!(1))
    );
    assert_eq!(answering(&weir, 4), named(&["b"]));
    // A weight of 0 drains too. Without any endpoint that takes requests, they fail at once.
    let weighted = patch(&weir, &b, &json!({ "weight": 0 }));
    assert_eq!(
        (&weighted["weight"], &weighted["state"]),
        (&json!(0), &json!("ready"))
    );
    let refused = weir.ask(get("/none"));
    refused.expect_refusal(503, "no_endpoint", "destination_unavailable");
    patch(&weir, &a, &json!({ "state": "maintenance" }));
    weir.ask(get("/none"))
        .expect_refusal(503, "no_endpoint", "destination_unavailable");
    let asked = json!({ "method": "GET", "url": "http://weir.test/" });
    let (_, explained) = call(&weir, "POST", "/api/explain", &asked);
    let text = explained["text"].as_str().unwrap();
    assert!(
        text.contains(&format!(
            "endpoint {}, maintenance, gets no requests\n",
            a.name
        )),
        "{text}"
    );
    assert!(
        text.contains("answer     503, reason no_endpoint"),
        "{text}"
    );
    let changes = read(&weir, "/api/changes");
    let wanted = json!([
        { "upstream": "up", "address": a.name, "state": "maintenance", "persist": false },
        { "upstream": "up", "address": b.name, "endpoint": "added", "weight": 0, "persist": false },
    ]);
    let sorted = |list: &Value| {
        let mut list: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(Value::to_string)
            .collect();
        list.sort();
        list
    };
    assert_eq!(sorted(&changes), sorted(&wanted));
    patch(&weir, &b, &json!({ "weight": 3, "state": "ready" }));
    patch(&weir, &a, &json!({ "state": "ready" }));
    let counted = (0..8).filter(|_| weir.ask(get("/")).text() == "b").count();
    assert_eq!(counted, 6, "three of four");
    for endpoint in [&b, &a] {
        let (status, body) = call(&weir, "DELETE", &endpoint_path(endpoint), &Value::Null);
        assert_eq!((status, body), (204, Value::Null));
    }
    assert_eq!(read(&weir, endpoints), json!([]));
    weir.ask(get("/none"))
        .expect_refusal(503, "no_endpoint", "destination_unavailable");
    // Back as the file has it.
    let (status, _) = call(&weir, "POST", endpoints, &json!({ "address": a.name }));
    assert_eq!(status, 201);
    assert_eq!(answering(&weir, 2), named(&["a"]));
    assert_eq!(read(&weir, "/api/changes"), json!([]));
    // Every change is in the log, with its client.
    let line = weir.wait_for("admin API, 127.0.0.1:");
    assert!(
        line.contains(&format!("added endpoint {} of upstream up", b.name)),
        "{line}"
    );
    weir.wait_for("state drain");
    weir.wait_for("removed endpoint ");
}

#[test]
fn a_drained_endpoint_finishes_its_requests() {
    let (gate, is_open) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (waits, opens) = (gate.clone(), is_open.clone());
    let slow = Endpoint::script(move |conn| {
        conn.request();
        waits.store(true, Ordering::SeqCst);
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow");
        eventually("the gate", || opens.load(Ordering::SeqCst).then_some(()));
        conn.send("slow");
    });
    let quick = Endpoint::answering(|_| ok("quick"));
    for change in [
        Some(json!({ "state": "drain" })),
        Some(json!({ "state": "maintenance" })),
        None,
    ] {
        gate.store(false, Ordering::SeqCst);
        is_open.store(false, Ordering::SeqCst);
        let weir = start(&route_to(&[&slow, &quick]));
        let mut clients: Vec<_> = (0..2).map(|_| weir.connect()).collect();
        clients.iter().for_each(|client| client.send(get("/")));
        eventually("the request", || gate.load(Ordering::SeqCst).then_some(()));
        eventually("the count", || {
            let shown = read(&weir, &endpoint_path(&slow));
            (shown["in_flight"] == 1).then_some(())
        });
        match &change {
            Some(change) => drop(patch(&weir, &slow, change)),
            None => {
                let removed = call(&weir, "DELETE", &endpoint_path(&slow), &Value::Null);
                assert_eq!(removed.0, 204);
            }
        }
        assert_eq!(answering(&weir, 4), named(&["quick"]));
        is_open.store(true, Ordering::SeqCst);
        let mut texts: Vec<_> = clients.iter_mut().map(|it| it.response().text()).collect();
        texts.sort();
        assert_eq!(texts, ["quick", "slowslow"]);
        if change.is_some() {
            eventually("no request", || {
                let shown = read(&weir, &endpoint_path(&slow));
                (shown["in_flight"] == 0).then_some(())
            });
        }
    }
}

#[test]
fn changes_and_reloads_under_load_lose_no_request() {
    let names = ["a", "b", "c"];
    let endpoints = names.map(|name| Endpoint::answering(move |_| ok(name)));
    let config = route_to(&[&endpoints[0], &endpoints[1]]);
    let weir = start(&format!("cores = 2\n{config}"));
    let is_over = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, is_over, answers) = (weir.address, is_over.clone(), answers.clone());
            spawn(move || {
                let mut conn = Conn::to(address);
                while !is_over.load(Ordering::SeqCst) {
                    conn.send(get("/"));
                    let answer = conn.response();
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let of_c = json!({ "address": endpoints[2].name });
    for round in 0..12 {
        let (status, _) = call(&weir, "POST", "/api/upstreams/up/endpoints", &of_c);
        assert_eq!(status, 201, "round {round}");
        patch(&weir, &endpoints[0], &json!({ "state": "drain" }));
        patch(&weir, &endpoints[1], &json!({ "weight": 0 }));
        let shown = answering(&weir, 2);
        assert_eq!(shown, named(&["c"]));
        patch(&weir, &endpoints[1], &json!({ "weight": 5 }));
        let (status, reloaded) = call(&weir, "POST", "/api/reload", &Value::Null);
        assert_eq!(status, 200, "{reloaded}");
        assert_eq!(reloaded["epoch"], round + 2);
        assert_eq!(read(&weir, "/api/changes"), json!([]));
    }
    is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("no request failed");
    }
    assert!(answers.load(Ordering::SeqCst) > 100);
    let page = weir.admin("/metrics").text();
    let failed = |line: &&str| {
        let is_failure = line.starts_with("weir_endpoint_failures_total{");
        is_failure && !line.ends_with(" 0")
    };
    assert_eq!(page.lines().find(failed), None);
}

#[test]
fn only_what_persists_survives_a_reload() {
    let (a, b, c) = (
        Endpoint::answering(|_| ok("a")),
        Endpoint::answering(|_| ok("b")),
        Endpoint::answering(|_| ok("c")),
    );
    let config = route_to(&[&a, &b]);
    let weir = start(&config);
    let endpoints = "/api/upstreams/up/endpoints";
    let kept = json!({ "address": c.name, "persist": true });
    assert_eq!(call(&weir, "POST", endpoints, &kept).0, 201);
    patch(&weir, &a, &json!({ "state": "drain", "persist": true }));
    patch(&weir, &b, &json!({ "state": "drain" }));
    assert_eq!(answering(&weir, 3), named(&["c"]));
    // A reload that fails changes nothing.
    weir.reload("nonsense");
    weir.wait_for("reload failed");
    assert_eq!(answering(&weir, 3), named(&["c"]));
    weir.reload(&with_token(&config));
    weir.wait_for("dropped the changes to 1 endpoint");
    weir.wait_for("reloaded in");
    assert_eq!(answering(&weir, 4), named(&["b", "c"]));
    let path = format!("{}?persist=true", endpoint_path(&c));
    assert_eq!(call(&weir, "DELETE", &path, &Value::Null).0, 204);
    assert_eq!(call(&weir, "POST", "/api/reload", &Value::Null).0, 200);
    assert_eq!(answering(&weir, 4), named(&["b"]));
}

#[test]
fn a_reload_reports_its_mistakes() {
    let endpoint = Endpoint::answering(|_| ok("a"));
    let dir = Weir::dir();
    fs::write(dir.join("token"), TOKEN).unwrap();
    let weir = Weir::start_in(&dir, &with_token(&route_to(&[&endpoint])));
    let file = dir.join("weir.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("to = \"up\"", "to = \"pu\"")).unwrap();
    let (status, body) = call(&weir, "POST", "/api/reload", &Value::Null);
    assert_eq!(
        (status, &body["error"]["code"]),
        (422, &json!("reload_failed"))
    );
    let diagnostic = &body["error"]["diagnostics"][0];
    assert!(
        diagnostic["message"].as_str().unwrap().contains("`pu`"),
        "{diagnostic}"
    );
    assert!(diagnostic["line"].as_u64().is_some(), "{diagnostic}");
    assert_eq!(answering(&weir, 2), named(&["a"]));
    let (admin, token) = (weir.admin.to_string(), dir.join("token"));
    let instance = ["--admin", &admin, "--token-file", token.to_str().unwrap()];
    let (code, output) = run_weir(&[&["reload"], &instance[..]].concat());
    assert_eq!(code, Some(3), "{output}");
    assert!(
        output.contains("`pu`") && output.contains("nothing has changed"),
        "{output}"
    );
    let (_, output) = run_weir(&[&["diff"], &instance[..]].concat());
    assert!(
        output.contains("- to = \"up\"") && output.contains("+ to = \"pu\""),
        "{output}"
    );
    fs::write(&file, format!("{text}# a comment\n")).unwrap();
    let (_, output) = run_weir(&[&["diff"], &instance[..]].concat());
    assert!(output.contains("is what runs"), "{output}");
    let (code, output) = run_weir(&[&["reload"], &instance[..]].concat());
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("reloaded in"), "{output}");
}

#[test]
fn what_runs_can_be_read_without_secrets() {
    let endpoint = Endpoint::answering(|_| ok("a"));
    let servers = &endpoint.name;
    let weir = start(&format!(
        "[upstream.up]\nservers = [\"{servers}\"]\n[[route]]\nname = \"all\"\nmatch = \"www.example.com/*\"\nto = \"up\"\n\
         headers = {{ request = {{ set = {{ Authorization = \"Bearer hunter2\" }} }} }} # hunter3\n"
    ));
    let routes = read(&weir, "/api/routes");
    assert_eq!(routes[0]["name"], "all");
    assert_eq!(routes[0]["hosts"], json!(["www.example.com"]));
    assert_eq!(routes[0]["upstream"], "up");
    assert_eq!(routes[0]["policies"], json!(["headers"]));
    assert_eq!(read(&weir, "/api/plan"), {
        let page = weir.admin("/plan").body;
        serde_json::from_slice::<Value>(&page).unwrap()
    });
    let config = read(&weir, "/api/config");
    let text = config["text"].as_str().unwrap();
    assert!(text.contains("Authorization = \"REDACTED\"") && !text.contains("hunter"));
    assert!(!text.contains(TOKEN));
    let asked = json!({ "method": "GET", "url": "http://www.example.com/x" });
    let (status, explained) = call(&weir, "POST", "/api/explain", &asked);
    assert_eq!(status, 200);
    let text = explained["text"].as_str().unwrap();
    assert!(
        text.contains("route      all") && text.contains(servers),
        "{text}"
    );
    let upstream = read(&weir, "/api/upstreams/up");
    assert_eq!(
        (&upstream["name"], &upstream["endpoints"][0]["address"]),
        (&json!("up"), &json!(servers))
    );
    assert_eq!(read(&weir, "/api/upstreams"), json!([upstream]));
    // The description names every path that answers.
    let description = read(&weir, "/api/openapi.json");
    let paths = description["paths"].as_object().unwrap();
    for path in [
        "/api/plan",
        "/api/routes",
        "/api/config",
        "/api/changes",
        "/api/upstreams",
    ] {
        assert!(paths[path]["get"].is_object(), "{path}");
    }
    let head = format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n");
    let mut conn = Conn::to(weir.admin);
    conn.send(format!(
        "HEAD /api/plan HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
    ));
    assert!(conn.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn the_commands_change_a_running_weir() {
    let (a, b) = (
        Endpoint::answering(|_| ok("a")),
        Endpoint::answering(|_| ok("b")),
    );
    let dir = Weir::dir();
    fs::write(dir.join("token"), TOKEN).unwrap();
    let admin = free_address("127.0.0.2");
    let config = format!(
        "admin = {{ address = \"{admin}\", token_file = \"token\" }}\n{}",
        route_to(&[&a])
    );
    let weir = Weir::start_in(&dir, &config);
    let file = dir.join("weir.toml");
    let file = ["--file", file.to_str().unwrap()];
    let run = |arguments: &[&str]| {
        let (code, output) = run_weir(&[arguments, &file[..]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {output}");
        output
    };
    run(&[
        "upstream",
        "add",
        "up",
        &b.name,
        "--weight",
        "2",
        "--persist",
    ]);
    let drained = run(&["upstream", "drain", "up", &a.name, "--wait", "20"]);
    assert!(drained.contains("drain, weight 1"), "{drained}");
    assert_eq!(answering(&weir, 3), named(&["b"]));
    let list = run(&["upstream", "list"]);
    assert!(
        list.lines()
            .next()
            .unwrap()
            .starts_with("UPSTREAM  ENDPOINT"),
        "{list}"
    );
    assert!(list.contains("drain") && list.contains("healthy"), "{list}");
    let listed: Value = serde_json::from_str(&run(&["upstream", "list", "up", "--json"])).unwrap();
    assert_eq!(listed[0]["endpoints"][1]["weight"], 2);
    let diff = run(&["diff"]);
    assert!(
        diff.contains(&format!("up {}: drain (until the next reload)", a.name)),
        "{diff}"
    );
    assert!(
        diff.contains(&format!(
            "up {}: added, weight 2 (kept over reloads)",
            b.name
        )),
        "{diff}"
    );
    assert!(diff.contains("is what runs"), "{diff}");
    let status = run(&["status"]);
    assert!(
        status.contains(": ready") && status.contains("2 endpoints"),
        "{status}"
    );
    run(&["upstream", "maintenance", "up", &b.name]);
    run(&["upstream", "ready", "up", &a.name]);
    run(&["upstream", "weight", "up", &a.name, "7"]);
    assert_eq!(answering(&weir, 3), named(&["a"]));
    run(&["reload"]);
    run(&["upstream", "remove", "up", &b.name, "--persist"]);
    assert_eq!(run(&["upstream", "list"]).lines().count(), 2);
}

#[test]
fn commands_say_what_is_wrong_and_what_helps() {
    let weir = start(
        "[[route]]\nmatch = \"/*\"\nrespond = 200\n[upstream.up]\nservers = [\"127.0.0.1:1\"]\n[[route]]\nmatch = \"/up/*\"\nto = \"up\"\n",
    );
    let dir = Weir::dir();
    fs::write(dir.join("token"), TOKEN).unwrap();
    let (admin, token) = (weir.admin.to_string(), dir.join("token"));
    let instance = ["--admin", &admin, "--token-file", as_text(&token)];
    let drain = ["upstream", "drain", "up", "10.0.0.9:1"];
    for (arguments, code, text) in [
        (
            &[&drain[..], &instance[..]].concat()[..],
            1,
            "no endpoint `10.0.0.9:1`",
        ),
        (&["upstream", "list", "--admin", &admin], 1, "--token-file"),
        (
            &["upstream", "list", "--wait", "1"],
            2,
            "--wait goes with `drain`",
        ),
        (
            &["upstream", "list", "--admin", "127.0.0.2:1"],
            1,
            "cannot reach Weir at 127.0.0.2:1",
        ),
        (
            &["upstream", "list", "--admin", "nonsense"],
            2,
            "not the address",
        ),
        (
            &["upstream", "drain", "up"],
            2,
            "weir upstream drain UPSTREAM ADDRESS",
        ),
        (&["upstream", "weight", "up", "x", "many"], 2, "no weight"),
        (&["upstream", "explode"], 2, "no verb `explode`"),
        (&["status", "--fast"], 2, "no option --fast"),
    ] {
        let (found, output) = run_weir(arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {output}");
        assert!(output.contains(text), "{arguments:?}: {output}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn readiness_ends_with_the_drain() {
    let weir = Weir::start(
        "timeouts = { drain_delay = \"30s\" }\n[[route]]\nmatch = \"/*\"\nrespond = 200\n",
    );
    assert_eq!(weir.admin("/readyz").status(), 200);
    weir.signal(rustix::process::Signal::TERM);
    eventually("the drain", || {
        (weir.admin("/readyz").status() == 503).then_some(())
    });
}

#[test]
fn a_token_is_checked_before_the_start() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    let check = |token: Option<&str>, arguments: &[&str]| {
        let path = dir.join("token");
        let _ = fs::remove_file(&path);
        if let Some(token) = token {
            fs::write(&path, token).unwrap();
        }
        let text = "[listen.\"127.0.0.1:0\"]\n[[route]]\nmatch = \"/*\"\nrespond = \"x\"\n";
        let admin = "admin = { address = \"127.0.0.1:0\", token_file = \"token\" }";
        fs::write(&file, format!("cores = 1\n{admin}\n{text}")).unwrap();
        run_weir(&[&["check", as_text(&file)], arguments].concat())
    };
    for (token, text) in [
        (None, "cannot read"),
        (Some("short"), "has 5 characters, at least 16"),
        (Some("two words that are long"), "holds no token"),
    ] {
        let (code, output) = check(token, &[]);
        assert_eq!(code, Some(3), "{output}");
        assert!(
            output.contains(text) && output.contains("weir.toml:2:"),
            "{output}"
        );
    }
    assert_eq!(check(None, &["--elsewhere"]).0, Some(0));
    assert_eq!(check(Some("short"), &["--elsewhere"]).0, Some(3));
    assert_eq!(check(Some(TOKEN), &[]).0, Some(0));
    fs::remove_dir_all(&dir).unwrap();
}

fn as_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
