//! Fields that Weir adds to, changes in and removes from forwarded requests.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::net::SocketAddr;

use e2e::*;

/// Sends a request and returns it as the endpoint received it.
#[track_caller]
fn forwarded(keys: &str, request: &str) -> Message {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with(keys, &[&endpoint]);
    assert_eq!(weir.ask(request).text(), "hello");
    endpoint.only_request()
}

#[test]
fn a_request_is_relayed_and_its_answer_comes_back() {
    let endpoint = Endpoint::answering(
        |_| "HTTP/1.1 201 Made\r\nX-Answer: yes\r\nContent-Length: 5\r\n\r\nhello",
    );
    let weir = Weir::to(&[&endpoint]);
    let response = weir.ask(post("/some/path?q=1", "a body"));
    assert_eq!(response.start, "HTTP/1.1 201 Made");
    assert_eq!(
        (response.text().as_str(), response.field("X-Answer")),
        ("hello", Some("yes"))
    );
    let request = endpoint.only_request();
    assert_eq!(request.start, "POST /some/path?q=1 HTTP/1.1");
    assert_eq!(request.field("Host"), Some("weir.test"));
    assert_eq!(request.text(), "a body");
}

#[test]
fn hop_by_hop_fields_and_those_that_connection_names_are_removed() {
    let request = forwarded(
        "",
        "GET / HTTP/1.1\r\nHost: weir.test\r\nConnection: X-Private, keep-alive\r\nConnection: x-other\r\n\
         X-Private: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic eA==\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nX-Public: 3\r\n\r\n",
    );
    for name in [
        "Connection",
        "X-Private",
        "X-Other",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "TE",
        "Upgrade",
        "HTTP2-Settings",
    ] {
        assert_eq!(request.field(name), None, "{name}");
    }
    assert_eq!(request.field("X-Public"), Some("3"));
}

#[test]
fn connection_cannot_remove_fields_that_endpoints_rely_on() {
    let request = forwarded(
        "",
        "POST / HTTP/1.1\r\nConnection: Host, Content-Length, Authorization, Cookie, X-Forwarded-For, Via, X-Request-Id\r\n\
         Connection: close, X-Forwarded-Proto, Forwarded, X-Real-Ip\r\n\
         Host: weir.test\r\nContent-Length: 4\r\nAuthorization: Bearer x\r\nCookie: a=b\r\n\r\nbody",
    );
    for name in [
        "Host",
        "Content-Length",
        "Authorization",
        "Cookie",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Forwarded",
        "Via",
        "X-Request-Id",
    ] {
        assert!(request.field(name).is_some(), "{name}");
    }
    assert_eq!(request.text(), "body");
}

#[test]
fn te_trailers_is_passed_on() {
    let request = forwarded(
        "",
        "GET / HTTP/1.1\r\nHost: weir.test\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n",
    );
    assert_eq!(
        (request.field("TE"), request.field("Connection")),
        (Some("trailers"), Some("TE"))
    );
}

#[test]
fn forwarded_fields_are_set() {
    let request = forwarded("", "GET / HTTP/1.1\r\nHost: weir.test:81\r\n\r\n");
    assert_eq!(request.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(request.field("X-Forwarded-Proto"), Some("http"));
    assert_eq!(request.field("X-Forwarded-Host"), Some("weir.test:81"));
    assert_eq!(
        request.field("Forwarded"),
        Some("for=127.0.0.1;host=\"weir.test:81\";proto=http")
    );
    assert_eq!(request.field("X-Request-Id").map(str::len), Some(32));
    assert!(
        request.field("Via").unwrap().starts_with("1.1 weir-"),
        "{request:?}"
    );
}

/// A request with forwarded fields of its own.
const CLAIMS: &str = "GET / HTTP/1.1\r\nHost: weir.test\r\nX-Forwarded-For: 192.0.2.7, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: outer.test\r\nForwarded: for=192.0.2.7;proto=https\r\nX-Request-Id: outer-id\r\nX-Real-Ip: 192.0.2.7\r\n\r\n";

#[test]
fn an_untrusted_client_cannot_set_forwarded_fields() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::to(&[&endpoint]);
    weir.ask(CLAIMS);
    let request = endpoint.only_request();
    assert_eq!(request.field("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(request.field("X-Forwarded-Proto"), Some("http"));
    assert_eq!(request.field("X-Forwarded-Host"), Some("weir.test"));
    assert_eq!(
        request.field("Forwarded"),
        Some("for=127.0.0.1;host=\"weir.test\";proto=http")
    );
    assert_ne!(request.field("X-Request-Id"), Some("outer-id"));
    assert_eq!(request.field("X-Real-Ip"), None);
    assert_eq!(weir.entry("/").text("client"), "127.0.0.1");
}

#[test]
fn forwarded_fields_of_a_trusted_proxy_are_kept_and_extended() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with(
        "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]",
        &[&endpoint],
    );
    weir.ask(CLAIMS);
    let request = endpoint.only_request();
    assert_eq!(
        request.field("X-Forwarded-For"),
        Some("192.0.2.7, 10.1.1.1, 127.0.0.1")
    );
    assert_eq!(request.field("X-Forwarded-Proto"), Some("https"));
    assert_eq!(request.field("X-Forwarded-Host"), Some("outer.test"));
    // Rebuilt from X-Forwarded-For, because balancers pass on fields that they do not write themselves.
    let elements = "for=192.0.2.7;host=\"outer.test\";proto=https, for=10.1.1.1, \
        for=127.0.0.1;host=\"weir.test\";proto=http";
    assert_eq!(request.all("Forwarded"), [elements]);
    assert_eq!(request.field("X-Request-Id"), Some("outer-id"));
    // The last address that is not a trusted proxy.
    assert_eq!(weir.entry("/").text("client"), "192.0.2.7");
}

/// Asserts that answer and log have one and the same id, and returns it.
#[track_caller]
fn answered_id(weir: &Weir, request: &str, path: &str) -> String {
    let response = weir.ask(request);
    let ids = response.all("X-Request-Id");
    assert_eq!(ids.len(), 1, "{path}: {ids:?}");
    assert_eq!(weir.entry(path).text("id"), ids[0], "{path}");
    if response.field("Content-Type") == Some("application/problem+json") {
        let member = format!("\"request_id\":\"{}\"", ids[0]);
        assert!(response.text().contains(&member), "{}", response.text());
    }
    ids[0].to_owned()
}

/// An endpoint that sends its own id, and three routes that Weir answers itself.
fn with_own_id(keys: &str) -> (Endpoint, Weir) {
    let endpoint = Endpoint::answering(
        |_| "HTTP/1.1 200 OK\r\nX-Request-Id: own\r\nx-request-id: own\r\nContent-Length: 5\r\n\r\nhello",
    );
    let routes = "[[route]]\nmatch = \"/fixed\"\nrespond = \"fixed\"\n\
        [[route]]\nmatch = \"/moved\"\nredirect = \"/fixed\"\n\
        [[route]]\nmatch = \"/small\"\nto = \"up\"\nlimits = { body = \"1B\" }\n";
    let weir = Weir::start(&format!("{keys}\n{}{routes}", route_to(&[&endpoint])));
    (endpoint, weir)
}

#[test]
fn every_answer_has_the_id_of_log_endpoint_and_body() {
    let (endpoint, weir) = with_own_id("");
    let relayed = answered_id(&weir, &get("/relayed"), "/relayed");
    assert_eq!(
        endpoint.only_request().field("X-Request-Id"),
        Some(&*relayed)
    );
    // Weir replaces an id from an untrusted client.
    let claimed = get("/claimed").replacen("\r\n", "\r\nX-Request-Id: mine\r\n", 1);
    assert_ne!(answered_id(&weir, &claimed, "/claimed"), "mine");
    let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n";
    for (request, path) in [
        (get("/fixed").as_str(), "/fixed"),
        (get("/moved").as_str(), "/moved"),
        (post("/small", "large").as_str(), "/small"),
        (get("/a%00").as_str(), "/a%00"),
        (bad, "/bad"),
    ] {
        let id = answered_id(&weir, request, path);
        assert_eq!((id.len(), id.contains("own")), (32, false), "{path}");
    }
}

#[test]
fn a_request_id_from_a_trusted_proxy_is_used_everywhere() {
    let (endpoint, weir) = with_own_id("trusted_proxies = \"127.0.0.1\"");
    let given = |path: &str, ids: &str| get(path).replacen("\r\n", &format!("\r\n{ids}"), 1);
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let one = format!("X-Request-Id: {uuid}\r\n");
    for path in ["/relayed", "/fixed", "/a%00"] {
        assert_eq!(answered_id(&weir, &given(path, &one), path), uuid, "{path}");
    }
    assert_eq!(endpoint.requests()[0].field("X-Request-Id"), Some(uuid));
    // An id with unsafe characters is replaced.
    for (at, ids) in [
        "X-Request-Id: a, b\r\n".to_owned(),
        "X-Request-Id: a\",\"b\r\n".to_owned(),
        format!("{one}{one}"),
        format!("X-Request-Id: {}\r\n", "x".repeat(129)),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/odd/{at}");
        let id = answered_id(&weir, &given(&path, &ids), &path);
        assert_eq!(id.len(), 32, "{ids}");
        let sent = endpoint.requests();
        assert_eq!(sent.last().unwrap().all("X-Request-Id"), [&id], "{ids}");
    }
}

#[test]
fn a_listener_may_keep_the_id_to_itself() {
    let listen = "[listen.\"127.0.0.1:0\"]\nrequest_id = false";
    let (endpoint, weir) = with_own_id(listen);
    assert_eq!(weir.ask(get("/")).all("X-Request-Id"), ["own", "own"]);
    assert!(endpoint.only_request().field("X-Request-Id").is_some());
    for path in ["/fixed", "/a%00"] {
        assert_eq!(weir.ask(get(path)).field("X-Request-Id"), None, "{path}");
    }
}

#[test]
fn an_upgrade_and_its_early_answers_have_no_other_id() {
    let endpoint = Endpoint::script(|conn| {
        conn.request();
        conn.send(
            "HTTP/1.1 103 Early Hints\r\nX-Request-Id: own\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             X-Request-Id: own\r\n\r\n",
        );
    });
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: weir.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
    let early = client.message_head();
    assert_eq!((early.status(), early.field("X-Request-Id")), (103, None));
    let switched = client.message_head();
    assert_eq!(switched.status(), 101);
    let ids = switched.all("X-Request-Id");
    drop(client);
    assert_eq!(ids, [weir.entry("/ws").text("id")]);
}

#[test]
fn trust_ends_at_the_first_address_that_is_not_a_proxy() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::with("trusted_proxies = \"127.0.0.9\"", &[&endpoint]);
    let ask = |from: &str| {
        let mut client = Conn::from_to(from.parse::<SocketAddr>().unwrap(), weir.address);
        client.send("GET /spoof HTTP/1.1\r\nHost: weir.test\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n\r\n");
        client.response();
    };
    ask("127.0.0.9:0");
    assert_eq!(weir.entry("/spoof").text("client"), "192.0.2.2");
    ask("127.0.0.8:0");
    assert_eq!(
        endpoint.requests()[1].field("X-Forwarded-For"),
        Some("127.0.0.8")
    );
}

#[test]
fn via_is_added_to_what_is_there() {
    let request = forwarded(
        "",
        "GET / HTTP/1.0\r\nHost: weir.test\r\nVia: 1.1 other\r\n\r\n",
    );
    let via = request.all("Via").join(", ");
    assert!(via.starts_with("1.1 other, 1.0 weir-"), "{via}");
}

#[test]
fn a_loop_is_broken_with_508() {
    // A file may not name its own listener, so the loop uses another address.
    let dir = Weir::dir();
    let (socket, alias) = (dir.join("loop.sock"), dir.join("alias.sock"));
    std::os::unix::fs::symlink(&socket, &alias).unwrap();
    let (socket, alias) = (socket.display(), alias.display());
    let config = format!(
        "[listen.\"127.0.0.1:0\"]\n[listen.\"unix:{socket}\"]\n[upstream.self]\nservers = [\"unix:{alias}\"]\n\
         [[route]]\nmatch = \"/*\"\nto = \"self\"\n"
    );
    let weir = Weir::start_in(&dir, &config);
    weir.ask(get("/"))
        .expect_refusal(508, "loop", "proxy_loop_detected");
}

#[test]
fn the_original_path_is_forwarded() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::to(&[&endpoint]);
    for target in [
        "/a//b/c//d?x=../y",
        "/%61%2e/%C3%A9",
        "/a;p=1/b?&&=%",
        "/~user/(x)*'!",
        "/?",
        "/a%20b?c%0Ad",
    ] {
        assert_eq!(weir.ask(get(target)).text(), "hello", "{target}");
        assert_eq!(endpoint.requests().last().unwrap().target(), target);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let endpoint =
        Endpoint::answering(|request| ok(&format!("{} {}", request.target(), request.text())));
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    let mut all = String::new();
    for n in 0..30 {
        all += &get(&format!("/get/{n}"));
        all += &post(&format!("/post/{n}"), &format!("body {n}"));
        all += &format!(
            "PUT /put/{n} HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nput\r\n0\r\n\r\n"
        );
    }
    client.send(&all);
    client.finish();
    for n in 0..30 {
        assert_eq!(client.response().text(), format!("/get/{n} "));
        assert_eq!(client.response().text(), format!("/post/{n} body {n}"));
        assert_eq!(client.response().text(), format!("/put/{n} put"));
    }
    client.expect_closed();
}

#[test]
fn pipelined_requests_may_go_to_different_upstreams() {
    // The first answer is slow. The second must still wait for it.
    let slow = Endpoint::script(|conn| {
        conn.request();
        // A megabyte takes many turns of the core's loop.
        conn.send(ok(&"s".repeat(1 << 20)));
        conn.expect_end();
    });
    let fast = Endpoint::answering(|_| ok("fast"));
    let weir = Weir::start(&format!(
        "[upstream]\nslow = {:?}\nfast = {:?}\n[[route]]\nmatch = \"/slow\"\nto = \"slow\"\n[[route]]\nmatch = \"/fast\"\nto = \"fast\"\n",
        slow.name, fast.name
    ));
    let mut client = weir.connect();
    client.send(get("/slow") + &get("/fast") + &get("/none"));
    assert_eq!(client.response().body.len(), 1 << 20);
    assert_eq!(client.response().text(), "fast");
    assert_eq!(client.response().status(), 404);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::to(&[&endpoint]);
    let mut first = weir.connect();
    let mut second = weir.connect();
    for _ in 0..20 {
        first.send(get("/"));
        first.response();
        second.send(post("/", "x"));
        second.response();
    }
    assert_eq!(
        (endpoint.requests().len(), endpoint.connections()),
        (40, 1),
        "one at a time needs one connection"
    );
}

#[test]
fn connection_close_is_obeyed() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::to(&[&endpoint]);
    let mut client = weir.connect();
    client.send("GET / HTTP/1.1\r\nHost: weir.test\r\nConnection: close\r\n\r\nGET /more HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    let response = client.response();
    assert_eq!(
        (response.text().as_str(), response.field("Connection")),
        ("hello", Some("close"))
    );
    client.finish();
    client.expect_end();
    assert_eq!(endpoint.only_request().target(), "/");
}

#[test]
fn fields_keep_their_order_their_case_and_their_bytes() {
    let request = forwarded(
        "",
        "GET / HTTP/1.1\r\nx-ODD-case: 1\r\nHost: weir.test\r\nX-Many: b\r\nX-Empty:\r\nX-Many: a\r\nX-Text: caf\u{e9}, \t \"q\"\r\n\r\n",
    );
    let names: Vec<_> = request
        .fields
        .iter()
        .map(|(name, _)| name.as_str())
        .take(6)
        .collect();
    assert_eq!(
        names,
        [
            "x-ODD-case",
            "Host",
            "X-Many",
            "X-Empty",
            "X-Many",
            "X-Text"
        ]
    );
    assert_eq!(request.all("X-Many"), ["b", "a"]);
    assert_eq!(
        (request.field("X-Empty"), request.field("X-Text")),
        (Some(""), Some("caf\u{e9}, \t \"q\""))
    );
}

#[test]
fn fields_of_answers_are_repeated_as_they_came() {
    let endpoint = Endpoint::answering(
        |_| "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nServer: own\r\nset-cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    );
    let weir = Weir::to(&[&endpoint]);
    let response = weir.ask(get("/"));
    assert_eq!(response.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(
        (response.field("Server"), response.fields[2].0.as_str()),
        (Some("own"), "set-cookie")
    );
}

#[test]
fn any_method_may_have_a_body() {
    for method in ["GET", "DELETE", "OPTIONS", "PURGE", "QUERY"] {
        let request = forwarded("", &post("/", "body").replacen("POST", method, 1));
        assert_eq!(
            (request.method(), request.text().as_str()),
            (method, "body")
        );
    }
}

#[test]
fn a_post_without_a_body_says_so() {
    let request = forwarded("", &post("/", ""));
    assert_eq!(
        (
            request.field("Content-Length"),
            request.field("Transfer-Encoding")
        ),
        (Some("0"), None)
    );
}

#[test]
fn options_of_the_whole_server_are_for_no_path() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::to(&[&endpoint]);
    let response = weir.ask("OPTIONS * HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    assert_eq!(response.status(), 404);
    assert_eq!(endpoint.connections(), 0);
}

#[test]
fn addresses_of_ipv6_are_written_by_their_rules() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return; // This machine has no IPv6.
    }
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::start(&format!("[listen.\"[::1]:0\"]\n{}", route_to(&[&endpoint])));
    weir.ask("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n");
    let request = endpoint.only_request();
    assert_eq!(request.field("X-Forwarded-For"), Some("::1"));
    assert_eq!(
        request.field("Forwarded"),
        Some("for=\"[::1]\";host=\"[::1]:8080\";proto=http")
    );
    let entry = weir.entry("/");
    assert_eq!(
        (entry.text("client").as_str(), entry.text("host").as_str()),
        ("::1", "[::1]")
    );
}
