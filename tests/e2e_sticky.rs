//! Upstreams that keep a client at its endpoint.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::collections::BTreeSet;
use std::fs;

use e2e::*;

const TOKEN: &str = "a-token-of-24-characters";

fn named(name: &'static str) -> Endpoint {
    Endpoint::answering(move |_| ok(name))
}

/// A file whose upstream `up` has these endpoints and keys.
fn file(keys: &str, endpoints: &[&Endpoint]) -> String {
    let servers: Vec<_> = endpoints
        .iter()
        .map(|e| format!("\"{}\"", e.name))
        .collect();
    weighted(keys, &servers)
}

fn weighted(keys: &str, servers: &[String]) -> String {
    let servers = servers.join(", ");
    format!(
        "[upstream.up]\nservers = [{servers}]\n{keys}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n"
    )
}

/// A GET with one more field.
fn get_with(field: &str) -> String {
    get("/").replacen("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"), 1)
}

/// The cookie that an answer sets, and its attributes.
fn set_cookie(answer: &Message) -> (String, String) {
    let set = answer.field("set-cookie").expect("a cookie");
    let (pair, attributes) = set.split_once(';').expect("attributes");
    (format!("Cookie: {pair}"), attributes.to_owned())
}

/// Asks until `name` answers a client without a cookie, and returns the client's cookie.
fn cookie_of(weir: &Weir, name: &str) -> String {
    eventually(name, || {
        let answer = weir.ask(get("/"));
        (answer.text() == name).then(|| set_cookie(&answer).0)
    })
}

#[track_caller]
fn expect_kept(weir: &Weir, cookie: &str, name: &str) {
    for _ in 0..8 {
        let answer = weir.ask(get_with(cookie));
        assert_eq!(answer.text(), name);
        assert_eq!(answer.field("set-cookie"), None);
    }
}

#[test]
fn a_cookie_keeps_a_client_at_its_endpoint() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let config = file("sticky = \"cookie\"", &[&a, &b, &c]);
    let weir = Weir::start(&config);
    let first = weir.ask(get("/"));
    let (cookie, attributes) = set_cookie(&first);
    assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax");
    assert!(cookie.starts_with("Cookie: weir-sticky-"), "{cookie}");
    expect_kept(&weir, &cookie, &first.text());
    let cookies: BTreeSet<_> = ["a", "b", "c"].map(|name| cookie_of(&weir, name)).into();
    assert_eq!(cookies.len(), 3);
    // Another process, which stands for another box or a restart, makes the same cookies.
    let other = Weir::start(&config);
    expect_kept(&other, &cookie, &first.text());
    assert!(weir.metric("weir_upstream_sessions_total{upstream=\"up\",outcome=\"kept\"}") >= 8.0);
    assert!(weir.metric("weir_upstream_sessions_total{upstream=\"up\",outcome=\"new\"}") >= 3.0);
}

#[test]
fn a_key_makes_cookies_that_only_its_owners_can() {
    let (a, b) = (named("a"), named("b"));
    let dir = Weir::dir();
    fs::write(dir.join("key"), [7; 32]).unwrap();
    let settings = "sticky = { cookie = \"route\", ttl = \"1h\", path = \"/x\", domain = \"weir.test\", \
                    same_site = \"strict\", key_file = \"key\" }";
    let weir = Weir::start_in(&dir, &file(settings, &[&a, &b]));
    let (cookie, attributes) = set_cookie(&weir.ask(get("/")));
    assert_eq!(
        attributes,
        " Max-Age=3600; Path=/x; Domain=weir.test; HttpOnly; SameSite=Strict"
    );
    // With a time, every answer renews the cookie.
    assert_eq!(set_cookie(&weir.ask(get_with(&cookie))).0, cookie);
    let plain = Weir::start(&file("sticky = { cookie = \"route\" }", &[&a, &b]));
    assert_ne!(set_cookie(&plain.ask(get_with(&cookie))).0, cookie);
    let text = format!("[listen.\"127.0.0.1:1\"]\n{}", file(settings, &[&a, &b]));
    fs::write(dir.join("weir.toml"), text).unwrap();
    fs::write(dir.join("key"), [7; 31]).unwrap();
    let path = dir.join("weir.toml");
    let (code, output) = run_weir(&["check", path.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{output}");
    assert!(
        output.contains("a key has at least 32 bytes, and this file has 31"),
        "{output}"
    );
}

#[test]
fn a_drained_endpoint_keeps_its_clients_and_gets_no_new_ones() {
    let (a, b) = (named("a"), named("b"));
    let keys = "sticky = \"cookie\"";
    let weir = Weir::start(&file(keys, &[&a, &b]));
    let cookie = cookie_of(&weir, "a");
    let drained = format!("{{ address = \"{}\", weight = 0 }}", a.name);
    weir.reload(&weighted(keys, &[drained, format!("\"{}\"", b.name)]));
    weir.wait_for("plan 2");
    expect_kept(&weir, &cookie, "a");
    for _ in 0..16 {
        assert_eq!(weir.ask(get("/")).text(), "b");
    }
    // Without the endpoint, the client gets another one and its cookie.
    weir.reload(&file(keys, &[&b]));
    weir.wait_for("plan 3");
    let answer = weir.ask(get_with(&cookie));
    assert_eq!(answer.text(), "b");
    expect_kept(&weir, &set_cookie(&answer).0, "b");
}

fn patch(weir: &Weir, endpoint: &Endpoint, state: &str) {
    let (path, host) = (&endpoint.name, weir.admin);
    let body = format!("{{\"state\":\"{state}\"}}");
    let length = body.len();
    let mut conn = Conn::to(weir.admin);
    conn.send(format!(
        "PATCH /api/upstreams/up/endpoints/{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ));
    let answer = conn.response();
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

#[test]
fn under_drain_clients_stay_and_under_maintenance_nobody_does() {
    let (a, b) = (named("a"), named("b"));
    let dir = Weir::dir();
    fs::write(dir.join("token"), format!("{TOKEN}\n")).unwrap();
    let admin = "admin = { address = \"127.0.0.2:0\", token_file = \"token\" }\n";
    let config = format!("{admin}{}", file("sticky = \"cookie\"", &[&a, &b]));
    let weir = Weir::start_in(&dir, &config);
    let cookie = cookie_of(&weir, "a");
    patch(&weir, &a, "drain");
    expect_kept(&weir, &cookie, "a");
    assert_eq!(weir.ask(get("/")).text(), "b");
    patch(&weir, &a, "maintenance");
    let moved = weir.ask(get_with(&cookie));
    assert_eq!(moved.text(), "b");
    patch(&weir, &a, "ready");
    expect_kept(&weir, &set_cookie(&moved).0, "b");
    // A client that has kept its cookie is at its endpoint again.
    expect_kept(&weir, &cookie, "a");
}

#[test]
fn a_client_whose_endpoint_fails_moves() {
    let (a, b) = (named("a"), named("b"));
    let keys = "sticky = \"cookie\"\npool = { idle_per_core = 0 }";
    let weir = Weir::start(&file(keys, &[&a, &b]));
    let cookie = cookie_of(&weir, "a");
    drop(a);
    let moved = weir.ask(get_with(&cookie));
    assert_eq!((moved.status(), moved.text()), (200, "b".to_owned()));
    expect_kept(&weir, &set_cookie(&moved).0, "b");
    assert!(weir.metric("weir_upstream_sessions_total{upstream=\"up\",outcome=\"moved\"}") >= 1.0);
}

#[test]
fn a_retry_after_an_unwanted_answer_moves_the_client() {
    let a = Endpoint::answering(|request| match request.field("x-fail") {
        Some(_) => "HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n".to_owned(),
        None => ok("a"),
    });
    let b = named("b");
    let weir = Weir::start(&file("sticky = \"cookie\"", &[&a, &b]));
    let cookie = cookie_of(&weir, "a");
    let moved = weir.ask(get_with(&format!("{cookie}\r\nX-Fail: 1")));
    assert_eq!((moved.status(), moved.text()), (200, "b".to_owned()));
    expect_kept(&weir, &set_cookie(&moved).0, "b");
}

#[test]
fn an_idle_connection_that_has_ended_moves_nobody() {
    // Each connection serves one request and then ends without a word.
    let closing = |name: &'static str| {
        Endpoint::script(move |conn| {
            if conn.next_request().is_some() {
                conn.send(ok(name));
            }
        })
    };
    let (a, b) = (closing("a"), closing("b"));
    let weir = Weir::start(&file("sticky = \"cookie\"", &[&a, &b]));
    let cookie = cookie_of(&weir, "a");
    for _ in 0..32 {
        assert_eq!(weir.ask(get_with(&cookie)).text(), "a");
    }
}

#[test]
fn the_last_endpoint_keeps_its_clients_while_it_drains() {
    let closing = Endpoint::script(|conn| {
        if conn.next_request().is_some() {
            conn.send(ok("a"));
        }
    });
    let keys = "sticky = \"cookie\"";
    let weir = Weir::start(&file(keys, &[&closing]));
    let cookie = cookie_of(&weir, "a");
    let drained = format!("{{ address = \"{}\", weight = 0 }}", closing.name);
    weir.reload(&weighted(keys, &[drained]));
    weir.wait_for("plan 2");
    for _ in 0..200 {
        let answer = weir.ask(get_with(&cookie));
        assert_eq!((answer.status(), answer.text()), (200, "a".to_owned()));
    }
    assert_eq!(weir.ask(get("/")).status(), 503);
}

#[test]
fn a_client_moves_when_its_endpoint_is_at_its_limit() {
    let slow = |name: &'static str| {
        Endpoint::script(move |conn| {
            while let Some(request) = conn.next_request() {
                if request.target() == "/hold" {
                    conn.wait_for_bytes();
                    return;
                }
                conn.send(ok(name));
            }
        })
    };
    let (a, b) = (slow("a"), slow("b"));
    let servers = [&a, &b].map(|e| format!("{{ address = \"{}\", connections = 1 }}", e.name));
    let weir = Weir::start(&weighted("sticky = \"cookie\"", &servers));
    let cookie = cookie_of(&weir, "a");
    let holder = weir.connect();
    holder.send(get("/hold").replacen("\r\n\r\n", &format!("\r\n{cookie}\r\n\r\n"), 1));
    let moved = eventually("the endpoint is busy", || {
        let answer = weir.ask(get_with(&cookie));
        (answer.text() == "b").then_some(answer)
    });
    assert!(moved.field("set-cookie").is_some());
}

#[test]
fn a_field_keeps_its_requests_at_one_endpoint() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let keys = "sticky = \"header:X-User\"\npool = { idle_per_core = 0 }";
    let weir = Weir::start(&file(keys, &[&a, &b, &c]));
    let of_user = |user: usize| weir.ask(get_with(&format!("x-user: {user}")));
    let homes: Vec<_> = (0..64).map(|user| of_user(user).text()).collect();
    assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 3);
    for (user, home) in homes.iter().enumerate() {
        let answer = of_user(user);
        assert_eq!(answer.text(), *home, "user {user}");
        assert_eq!(answer.field("set-cookie"), None);
    }
    drop(c);
    for (user, home) in homes.iter().enumerate().filter(|(_, home)| *home != "c") {
        assert_eq!(of_user(user).text(), *home, "user {user}");
    }
}

/// An application that keeps sessions: it shows the session of a request, and begins or ends one on demand.
fn application(name: &'static str) -> Endpoint {
    Endpoint::answering(move |request| {
        let set = match request.target() {
            "/login" => format!(
                "Set-Cookie: theme=dark\r\nSet-Cookie: SID={name}-session; Path=/; HttpOnly\r\nSet-Cookie: x=1\r\n"
            ),
            "/quoted" => format!("Set-Cookie: SID=\"{name} session\"; Path=/\r\n"),
            "/logout" => "Set-Cookie: SID=; Path=/; Max-Age=0\r\n".to_owned(),
            _ => String::new(),
        };
        let sent = request.all("cookie").join(" | ");
        let body = format!("{name}: {sent}");
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\n{set}Content-Length: {length}\r\n\r\n{body}")
    })
}

#[test]
fn the_cookie_of_an_application_is_learned() {
    let (a, b) = (application("a"), application("b"));
    let weir = Weir::start(&file("sticky = { learn = \"SID\" }", &[&a, &b]));
    for (path, value) in [("/login", "N-session"), ("/quoted", "\"N session\"")] {
        for _ in 0..4 {
            let login = weir.ask(get(path));
            let home = login.text().chars().next().unwrap().to_string();
            let own = value.replace('N', &home);
            let set = login.all("set-cookie").into_iter();
            let set = set.map(str::to_owned).find(|set| set.starts_with("SID="));
            let set = set.expect("the session");
            assert!(
                set.contains('~') && !set.contains(&format!("SID={own}")),
                "{set}"
            );
            let cookie = format!("Cookie: a=b; {}; c=d", set.split(';').next().unwrap());
            for _ in 0..8 {
                let answer = weir.ask(get_with(&cookie));
                assert_eq!(answer.text(), format!("{home}: a=b; SID={own}; c=d"));
                assert_eq!(answer.field("set-cookie"), None);
            }
        }
    }
    // The other cookies of the application stay as they are, and in order.
    let login = weir.ask(get("/login"));
    let [theme, session, x] = login.all("set-cookie")[..] else {
        panic!("three cookies")
    };
    assert_eq!((theme, x), ("theme=dark", "x=1"));
    assert!(session.ends_with("-session; Path=/; HttpOnly"), "{session}");
    let logout = weir.ask(get("/logout"));
    assert_eq!(logout.field("set-cookie"), Some("SID=; Path=/; Max-Age=0"));
    // A session from before Weir has no mark. It stays at one endpoint, and goes to it as it came.
    let homes: BTreeSet<_> = (0..8)
        .map(|_| weir.ask(get_with("Cookie: SID=old")).text())
        .collect();
    assert_eq!(homes.len(), 1, "{homes:?}");
    assert!(homes.iter().all(|home| home.ends_with(": SID=old")));
}

#[test]
fn a_learned_cookie_survives_policies_that_edit_cookies() {
    let (a, b) = (application("a"), application("b"));
    let more = "[route.headers.request]\nadd = { X-A = \"1\" }\n[route.headers.response]\nset = { X-B = \"2\" }\n";
    let weir = Weir::start(&format!(
        "{}{more}",
        file("sticky = { learn = \"SID\" }", &[&a, &b])
    ));
    let login = weir.ask(get("/login"));
    assert_eq!(login.field("x-b"), Some("2"));
    let session = login.all("set-cookie")[1]
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let home = login.text().chars().next().unwrap();
    for _ in 0..4 {
        let answer = weir.ask(get_with(&format!("Cookie: {session}")));
        assert_eq!(answer.text(), format!("{home}: SID={home}-session"));
    }
    let endpoint = if home == 'a' { &a } else { &b };
    let requests = endpoint.requests();
    assert_eq!(requests.last().unwrap().field("x-a"), Some("1"));
}

#[test]
fn an_upgrade_gets_the_cookie_and_goes_where_it_says() {
    let switching = |name: &'static str| {
        Endpoint::script(move |conn| {
            if conn.next_request().is_some() {
                conn.send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n{name}"
                ));
                conn.rest();
            }
        })
    };
    let (a, b) = (switching("a"), switching("b"));
    let weir = Weir::start(&file("sticky = \"cookie\"", &[&a, &b]));
    let upgrade = |more: &str| {
        let mut client = weir.connect();
        client.send(get_with(&format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-More: 1{more}"
        )));
        let head = client.message_head();
        assert_eq!(head.status(), 101);
        (head, String::from_utf8(client.take(1)).unwrap())
    };
    let (head, home) = upgrade("");
    let (cookie, _) = set_cookie(&head);
    for _ in 0..8 {
        let (head, name) = upgrade(&format!("\r\n{cookie}"));
        assert_eq!((name, head.field("set-cookie")), (home.clone(), None));
    }
}

#[test]
fn a_request_of_a_session_is_not_hedged() {
    let slow = |name: &'static str| {
        Endpoint::answering(move |request| {
            if request.field("cookie").is_some() {
                std::thread::sleep(std::time::Duration::from_millis(150));
            }
            ok(name)
        })
    };
    let (a, b) = (slow("a"), slow("b"));
    let keys = "sticky = \"cookie\"\nretries = { hedge = \"20ms\" }";
    let weir = Weir::start(&file(keys, &[&a, &b]));
    let cookie = cookie_of(&weir, "a");
    for _ in 0..3 {
        assert_eq!(weir.ask(get_with(&cookie)).text(), "a");
    }
    assert_eq!(
        weir.metric("weir_upstream_hedges_total{upstream=\"up\"}"),
        0.0
    );
}
