//! `forward_auth` with doubles of Authelia and oauth2-proxy: who passes, what endpoints and clients get, and what happens
//! when the authorization server fails.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use e2e::*;

/// Answers as Authelia's endpoint for Traefik does: by the session cookie, with a redirect to the portal for browsers
/// and 401 for the rest.
fn authelia() -> Endpoint {
    Endpoint::answering(|asked| {
        assert_eq!(asked.target(), "/api/authz/forward-auth");
        let names = [
            "X-Forwarded-Method",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Uri",
        ];
        let [method, proto, host, uri] = names.map(|name| asked.field(name).unwrap());
        assert!(asked.field("X-Forwarded-For").is_some());
        match asked.field("Cookie") {
            Some("authelia_session=alice") => {
                "HTTP/1.1 200 OK\r\nRemote-User: alice\r\nRemote-Groups: users,admins\r\n\
                 Remote-Email: alice@example.com\r\nContent-Length: 6\r\n\r\n200 OK"
                    .to_owned()
            }
            Some("authelia_session=bob") => {
                "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 Content-Length: 13\r\n\r\n403 Forbidden"
                    .to_owned()
            }
            _ if asked
                .field("Accept")
                .is_some_and(|accept| accept.contains("text/html")) =>
            {
                let link =
                    format!("https://login.example.com/?rd={proto}://{host}{uri}&rm={method}");
                let body = format!("<a href=\"{link}\">302 Found</a>");
                format!(
                    "HTTP/1.1 302 Found\r\nLocation: {link}\r\nSet-Cookie: authelia_session=new; HttpOnly\r\n\
                     Set-Cookie: lang=en\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            _ => "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"Authelia\"\r\n\
                  Content-Type: text/plain\r\nContent-Length: 16\r\n\r\n401 Unauthorized"
                .to_owned(),
        }
    })
}

/// Answers as oauth2-proxy's `/oauth2/auth` does: 202 with the user and a renewed cookie, else 401.
fn oauth2_proxy() -> Endpoint {
    Endpoint::answering(|asked| match asked.field("Cookie") {
        Some("_oauth2_proxy=old") => {
            "HTTP/1.1 202 Accepted\r\nX-Auth-Request-User: carol\r\nGap-Auth: carol\r\n\
             X-Auth-Request-Email: carol@example.com\r\nSet-Cookie: _oauth2_proxy=new; Path=/\r\n\
             Set-Cookie: _csrf=1\r\nContent-Length: 0\r\n\r\n"
        }
        Some("_oauth2_proxy=fresh") => {
            "HTTP/1.1 202 Accepted\r\nX-Auth-Request-User: carol\r\nContent-Length: 0\r\n\r\n"
        }
        _ => {
            "HTTP/1.1 401 Unauthorized\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nUnauthorized\n"
        }
    })
}

/// A Weir whose one route has this `forward_auth`.
fn weir(auth: &str, app: &Endpoint) -> Weir {
    let route = route_to(&[app]);
    Weir::start(&format!("{route}forward_auth = {auth}\n"))
}

fn with_authelia(auth: &Endpoint, app: &Endpoint) -> Weir {
    let to = format!("http://{}/api/authz/forward-auth", auth.name);
    let copied = "copy_to_request = [\"Remote-User\", \"Remote-Groups\", \"Remote-Email\"]";
    weir(&format!("{{ to = \"{to}\", {copied} }}"), app)
}

fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: app.example.com\r\n{fields}\r\n")
}

#[test]
fn a_user_passes_and_the_endpoint_learns_who_it_is() {
    let (auth, app) = (authelia(), Endpoint::answering(|_| ok("wiki")));
    let weir = with_authelia(&auth, &app);
    let forged = "Remote-User: root\r\nremote-groups: wheel\r\nRemote_Email: root@example.com\r\n\
                  X-Forwarded-Uri: /public\r\nX-Forwarded-Method: GET\r\nX-Original-URL: http://a/\r\n\
                  X-Forwarded-For: 10.9.9.9\r\nConnection: Remote-User\r\n";
    let cookie = "Cookie: authelia_session=alice\r\n";
    let body = "Content-Length: 4\r\n\r\nbody";
    let sent = request("POST /a/./page?x=1", &format!("{forged}{cookie}{body}"));
    let answer = weir.ask(sent.strip_suffix("\r\n").unwrap());
    assert_eq!((answer.status(), answer.text().as_str()), (200, "wiki"));

    let asked = auth.only_request();
    assert_eq!(asked.method(), "GET");
    assert_eq!(asked.field("Host"), Some(&*auth.name));
    assert_eq!(asked.field("X-Forwarded-Method"), Some("POST"));
    assert_eq!(asked.field("X-Forwarded-Proto"), Some("http"));
    assert_eq!(asked.field("X-Forwarded-Host"), Some("app.example.com"));
    assert_eq!(asked.field("X-Forwarded-Uri"), Some("/a/page?x=1"));
    assert_eq!(asked.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(asked.field("X-Original-Method"), Some("POST"));
    let url = asked.field("X-Original-URL");
    assert_eq!(url, Some("http://app.example.com/a/page?x=1"));
    assert_eq!(
        (asked.field("Content-Length"), asked.text().as_str()),
        (None, "")
    );
    assert!(asked.field("Via").unwrap().starts_with("1.1 weir-"));

    let got = app.only_request();
    assert_eq!(got.target(), "/a/page?x=1");
    assert_eq!(got.field("Remote-User"), Some("alice"));
    assert_eq!(got.field("Remote-Groups"), Some("users,admins"));
    assert_eq!(got.field("Remote-Email"), Some("alice@example.com"));
    assert_eq!(got.field("Remote_Email"), None);
    assert_eq!(got.text(), "body");
    assert_eq!(asked.field("X-Request-Id"), got.field("X-Request-Id"));
    let entry = weir.entry("/a/./page?x=1");
    assert_eq!(entry.number("status"), 200.0);
    assert_eq!(
        weir.metric("weir_upstream_exchanges_total{upstream=\"up\",class=\"2xx\"}"),
        1.0
    );
    let name = format!("http://{}", auth.name);
    let metric = format!("weir_upstream_exchanges_total{{upstream=\"{name}\",class=\"2xx\"}}");
    assert_eq!(weir.metric(&metric), 1.0);
}

#[test]
fn what_refuses_goes_to_the_client_as_it_is() {
    let (auth, app) = (authelia(), Endpoint::answering(|_| ok("wiki")));
    let weir = with_authelia(&auth, &app);
    let mut client = weir.connect();
    client.send(request("GET /a?b=c", "Accept: text/html\r\n"));
    let answer = client.response();
    let link = "https://login.example.com/?rd=http://app.example.com/a?b=c&rm=GET";
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.field("Location"), Some(link));
    let cookies = ["authelia_session=new; HttpOnly", "lang=en"];
    assert_eq!(answer.all("Set-Cookie"), cookies);
    assert_eq!(answer.text(), format!("<a href=\"{link}\">302 Found</a>"));
    assert_eq!(answer.all("Date").len(), 1);
    assert_eq!(answer.field("Proxy-Status"), None);

    client.send(request("GET /api", ""));
    let answer = client.response();
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (401, "401 Unauthorized")
    );
    let challenge = answer.field("WWW-Authenticate");
    assert_eq!(challenge, Some("Basic realm=\"Authelia\""));

    client.send(request("GET /api", "Cookie: authelia_session=bob\r\n"));
    let answer = client.response();
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (403, "403 Forbidden")
    );

    // The body of a refused request does not disturb the next one.
    client.send(post("/api", "body"));
    assert_eq!(client.response().status(), 401);
    client.send(request("HEAD /api", ""));
    let head = client.message_head();
    assert_eq!(
        (head.status(), head.field("Content-Length")),
        (401, Some("16"))
    );
    client.send(request("GET /api", ""));
    assert_eq!(client.response().text(), "401 Unauthorized");
    assert!(app.requests().is_empty());
    assert_eq!(auth.connections(), 1, "connections are reused");
    let entry = weir.entry("/a?b=c");
    assert_eq!(
        (entry.number("status"), entry.text("policy")),
        (302.0, "forward_auth".to_owned())
    );
}

#[test]
fn a_renewed_session_reaches_the_client_with_the_endpoints_answer() {
    let auth = oauth2_proxy();
    let app = Endpoint::answering(
        |_| "HTTP/1.1 200 OK\r\nSet-Cookie: app=1\r\nX-Auth-Request-Email: forged\r\nContent-Length: 0\r\n\r\n",
    );
    let auth_keys = format!(
        "{{ to = \"http://{}\", path = \"/oauth2/auth\", copy_to_request = \"X-Auth-Request-User\", \
         copy_to_response = [\"Set-Cookie\", \"X-Auth-Request-Email\"] }}",
        auth.name
    );
    let weir = weir(&auth_keys, &app);
    let answer = weir.ask(request("GET /", "Cookie: _oauth2_proxy=old\r\n"));
    let cookies = ["app=1", "_oauth2_proxy=new; Path=/", "_csrf=1"];
    assert_eq!(answer.all("Set-Cookie"), cookies);
    assert_eq!(
        answer.field("X-Auth-Request-Email"),
        Some("carol@example.com")
    );
    assert_eq!(answer.field("Gap-Auth"), None);
    let got = app.only_request();
    assert_eq!(got.field("X-Auth-Request-User"), Some("carol"));
    assert_eq!(got.field("X-Auth-Request-Email"), None);
    assert_eq!(auth.only_request().target(), "/oauth2/auth");
    let refused = weir.ask(request("GET /", ""));
    assert_eq!(
        (refused.status(), refused.text().as_str()),
        (401, "Unauthorized\n")
    );
}

#[test]
fn verdicts_are_kept_as_long_as_the_file_says() {
    let (auth, app) = (oauth2_proxy(), Endpoint::answering(|_| ok("")));
    let auth_keys = format!(
        "{{ to = \"http://{}\", cache = \"1h\", request_headers = \"cookie\", copy_to_request = \"X-Auth-Request-User\" }}",
        auth.name
    );
    let weir = weir(&auth_keys, &app);
    for n in 0..5 {
        let fields = format!("Cookie: _oauth2_proxy=fresh\r\nX-N: {n}\r\n");
        assert_eq!(weir.ask(request("GET /", &fields)).status(), 200);
    }
    assert_eq!(auth.requests().len(), 1);
    assert_eq!(auth.only_request().field("X-N"), None);
    let users = app.requests();
    let users: Vec<_> = users
        .iter()
        .map(|one| one.field("X-Auth-Request-User"))
        .collect();
    assert_eq!(users, [Some("carol"); 5]);
    // Another path is another question. Neither refusals nor verdicts with cookies are kept.
    for (line, cookie, asked) in [
        ("GET /other", "fresh", 2),
        ("GET /other", "fresh", 2),
        ("POST /", "fresh", 3),
        ("GET /", "none", 4),
        ("GET /", "none", 5),
        ("GET /", "old", 6),
        ("GET /", "old", 7),
        ("GET /", "fresh", 7),
    ] {
        weir.ask(request(
            line,
            &format!("Cookie: _oauth2_proxy={cookie}\r\nContent-Length: 0\r\n"),
        ));
        assert_eq!(auth.requests().len(), asked, "{line} {cookie}");
    }
}

#[test]
fn no_trailer_claims_to_be_somebody() {
    let auth = Endpoint::answering(
        |_| "HTTP/1.1 200 OK\r\nRemote-User: alice\r\nContent-Length: 0\r\n\r\n",
    );
    let app = Endpoint::answering(|_| ok(""));
    let keys = format!(
        "{{ to = \"http://{}\", copy_to_request = \"Remote-User\" }}",
        auth.name
    );
    let weir = weir(&keys, &app);
    let body = "Transfer-Encoding: chunked\r\nTrailer: Remote-User, X-Sum\r\n\r\n1\r\nx\r\n0\r\n\
                Remote-User: root\r\nX-Sum: 1\r\n";
    assert_eq!(weir.ask(request("POST /", body)).status(), 200);
    let got = app.only_request();
    assert_eq!(got.field("Remote-User"), Some("alice"));
    assert_eq!(
        (got.trailer("Remote-User"), got.trailer("X-Sum")),
        (None, Some("1"))
    );
}

#[test]
fn a_login_page_too_long_to_read_lets_nobody_pass() {
    let auth = Endpoint::answering(|asked| {
        let uri = asked
            .field("X-Forwarded-Uri")
            .unwrap()
            .replace('%', "%2525");
        format!("HTTP/1.1 302 Found\r\nLocation: /login?rd={uri}\r\nContent-Length: 0\r\n\r\n")
    });
    let app = Endpoint::answering(|_| ok("app"));
    let weir = weir(
        &format!("{{ to = \"http://{}\", on_error = \"allow\" }}", auth.name),
        &app,
    );
    let long = request(&format!("GET /?{}", "%61".repeat(2_700)), "");
    let answer = weir.ask(long);
    answer.expect_refusal(503, "auth_unavailable", "destination_unavailable");
    assert!(app.requests().is_empty());
}

/// An address that nothing listens on.
fn dead_address() -> String {
    free_address("127.0.0.9").to_string()
}

#[test]
fn a_server_that_fails_closes_or_opens_the_route() {
    let broken = Endpoint::answering(|_| "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops");
    let silent = Endpoint::script(|conn| {
        conn.next_request();
        conn.rest();
    });
    let endless = Endpoint::answering(|_| {
        format!(
            "HTTP/1.1 403 No\r\nContent-Length: 1000000\r\n\r\n{}",
            "x".repeat(1_000_000)
        )
    });
    let dead = dead_address();
    let cases = [
        (&broken.name, true),
        (&silent.name, true),
        (&dead, true),
        (&endless.name, false),
    ];
    for (server, may_pass) in cases {
        for on_error in ["deny", "allow"] {
            let app = Endpoint::answering(|_| ok("app"));
            let auth = format!(
                "{{ to = \"http://{server}\", timeout = \"300ms\", on_error = \"{on_error}\", copy_to_request = \"Remote-User\" }}"
            );
            let weir = weir(&auth, &app);
            let answer = weir.ask(request("GET /", "Remote-User: root\r\n"));
            if may_pass && on_error == "allow" {
                assert_eq!(answer.text(), "app", "{server}");
                assert_eq!(app.only_request().field("Remote-User"), None);
            } else {
                answer.expect_refusal(503, "auth_unavailable", "destination_unavailable");
                assert!(app.requests().is_empty());
                let entry = weir.entry("/");
                assert_eq!(entry.text("policy"), "forward_auth");
                assert_eq!(entry.text("reason"), "auth_unavailable");
            }
        }
    }
}

/// An authorization server that takes one request and then waits for the end of the connection.
fn waiting() -> (Endpoint, Receiver<&'static str>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let endpoint = Endpoint::script(move |conn| {
        conn.next_request();
        tell.lock().unwrap().send("asked").unwrap();
        conn.rest();
        tell.lock().unwrap().send("gone").unwrap();
    });
    (endpoint, told)
}

#[test]
fn a_client_that_leaves_cancels_the_question() {
    let (auth, told) = waiting();
    let app = Endpoint::answering(|_| ok("app"));
    let weir = weir(
        &format!("{{ to = \"http://{}\", timeout = \"1h\" }}", auth.name),
        &app,
    );
    let mut client = weir.connect();
    client.send(request("GET /left", ""));
    assert_eq!(told.recv_timeout(DEADLINE), Ok("asked"));
    client.reset_now();
    assert_eq!(told.recv_timeout(DEADLINE), Ok("gone"));
    assert_eq!(weir.entry("/left").text("reason"), "client_closed");
    assert!(app.requests().is_empty());
}

#[test]
fn a_stop_ends_the_question() {
    let (auth, told) = waiting();
    let app = Endpoint::answering(|_| ok("app"));
    let keys = format!(
        "timeouts = {{ grace = \"200ms\" }}\n{}forward_auth = {{ to = \"http://{}\", timeout = \"1h\" }}\n",
        route_to(&[&app]),
        auth.name
    );
    let mut weir = Weir::start(&keys);
    let mut client = weir.connect();
    client.send(request("GET /", ""));
    assert_eq!(told.recv_timeout(DEADLINE), Ok("asked"));
    weir.signal(rustix::process::Signal::TERM);
    client
        .response()
        .expect_refusal(503, "shutting_down", "destination_unavailable");
    assert_eq!(told.recv_timeout(DEADLINE), Ok("gone"));
    assert!(weir.wait().success());
}

#[test]
fn the_upload_waits_for_the_verdict() {
    let auth = Endpoint::answering(|asked| {
        assert_eq!(asked.field("Expect"), None);
        std::thread::sleep(Duration::from_millis(50));
        match asked.field("Cookie") {
            Some(_) => "HTTP/1.1 204 No Content\r\n\r\n",
            None => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        }
    });
    let app = Endpoint::answering(|got| ok(&got.text()));
    let weir = weir(&format!("\"http://{}/verify\"", auth.name), &app);
    let expecting = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let mut client = weir.connect();
    client.send(request("PUT /", expecting));
    assert_eq!(
        client.response().status(),
        401,
        "no 100 (Continue) before it"
    );
    let mut client = weir.connect();
    client.send(request("PUT /", &format!("{expecting}Cookie: a=b\r\n")));
    client.send("hello");
    let mut answer = client.response();
    while answer.status() == 100 {
        answer = client.response();
    }
    assert_eq!(answer.text(), "hello");
}

#[test]
fn a_named_upstream_gets_the_clients_host_and_may_have_several_servers() {
    let auths = [(); 2].map(|()| Endpoint::answering(|_| ok("")));
    let app = Endpoint::answering(|_| ok("app"));
    let servers = auths.each_ref().map(|auth| &auth.name);
    let weir = Weir::start(&format!(
        "[upstream.auth]\nservers = {servers:?}\nbalance = \"round_robin\"\n{}forward_auth = \"auth\"\n",
        route_to(&[&app])
    ));
    for _ in 0..4 {
        assert_eq!(weir.ask(request("GET /", "")).text(), "app");
    }
    for auth in &auths {
        let requests = auth.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].field("Host"), Some("app.example.com"));
        assert_eq!(requests[0].target(), "/");
    }
}

#[test]
fn a_server_over_tls_must_show_a_certificate() {
    let app = Endpoint::answering(|_| ok("app"));
    // This server speaks no TLS.
    let auth = Endpoint::script(|conn| {
        conn.wait_for_bytes();
        let _ = conn.try_send("HTTP/1.1 400 Bad Request\r\n\r\n");
        conn.rest();
    });
    let weir = weir(&format!("\"https://{}/\"", auth.name), &app);
    let answer = weir.ask(request("GET /", ""));
    answer.expect_refusal(503, "auth_unavailable", "destination_unavailable");
}

#[test]
fn weir_as_its_own_server_does_not_ask_itself_for_ever() {
    let app = Endpoint::answering(|_| ok("app"));
    let address = free_address("127.0.0.1");
    let weir = Weir::start(&format!(
        "[listen.\"{address}\"]\n{}forward_auth = \"http://{address}/\"\n",
        route_to(&[&app])
    ));
    let began = Instant::now();
    let answer = weir.ask(request("GET /", ""));
    answer.expect_refusal(503, "auth_unavailable", "destination_unavailable");
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn an_upgrade_is_checked_first() {
    let auth = Endpoint::answering(|asked| {
        assert_eq!(asked.field("Upgrade"), None);
        match asked.field("Cookie") {
            Some(_) => "HTTP/1.1 204 No Content\r\n\r\n",
            None => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        }
    });
    let app = Endpoint::script(|conn| {
        let asked = conn.message_head();
        assert_eq!(asked.field("Upgrade"), Some("websocket"));
        assert_eq!(asked.field("Remote-User"), None);
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi");
        conn.expect("yo");
        conn.send("bye");
        conn.rest();
    });
    let weir = weir(
        &format!(
            "{{ to = \"http://{}\", copy_to_request = \"Remote-User\" }}",
            auth.name
        ),
        &app,
    );
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nRemote-User: root\r\n";
    assert_eq!(weir.ask(request("GET /ws", upgrade)).status(), 401);
    let mut client = weir.connect();
    client.send(request("GET /ws", &format!("{upgrade}Cookie: a=b\r\n")));
    assert_eq!(client.message_head().status(), 101);
    client.expect("hi");
    client.send("yo");
    client.expect("bye");
}

/// A proxy that appends leaves the client's own text in front.
#[test]
fn the_server_and_the_endpoint_get_the_same_host_from_a_trusted_proxy() {
    let (auth, app) = (authelia(), Endpoint::answering(|_| ok("wiki")));
    let route = route_to(&[&app]);
    let to = format!("http://{}/api/authz/forward-auth", auth.name);
    for (spelling, fields) in [
        (
            "x-forwarded-for",
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: public.test, wiki.test\r\n",
        ),
        (
            "x-forwarded-for",
            "X-Forwarded-Host: public.test\r\nX-Forwarded-Host: wiki.test\r\n",
        ),
        (
            "forwarded",
            "Forwarded: host=public.test, for=192.0.2.7;host=wiki.test\r\n",
        ),
    ] {
        let weir = Weir::start(&format!(
            "trusted_proxies = \"127.0.0.1\"\nforwarded_header = \"{spelling}\"\n{route}forward_auth = \"{to}\"\n"
        ));
        let cookie = "Cookie: authelia_session=alice\r\n";
        let answer = weir.ask(request("GET /", &format!("{fields}{cookie}")));
        assert_eq!(answer.status(), 200);
        let asked = auth.requests().pop().unwrap();
        assert_eq!(asked.field("X-Forwarded-Host"), Some("wiki.test"));
        assert_eq!(asked.field("X-Original-URL"), Some("http://wiki.test/"));
        let got = app.requests().pop().unwrap();
        assert_eq!(got.field("X-Forwarded-Host"), Some("wiki.test"));
    }
}
