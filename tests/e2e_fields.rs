//! Request fields that clients may not send: names that endpoints confuse with others, and names reserved for proxies.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use e2e::*;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use peers::{Body, Client, PAIRS, Protocol, Server, answer, request, routed, run};

/// An endpoint, and a Weir that routes everything to it.
struct Edge {
    // Dropped first, so that its connections end before the endpoint waits for that.
    weir: Weir,
    endpoint: Endpoint,
}

impl Edge {
    /// The keys go to the top level, the listener and the route.
    fn new(top: &str, listener: &str, route: &str) -> Self {
        Self::with_routes(top, listener, "", route)
    }

    /// Like `new`, with routes before the one to the endpoint.
    fn with_routes(top: &str, listener: &str, routes: &str, route: &str) -> Self {
        let endpoint = Endpoint::answering(|_| ok("hello"));
        let weir = Weir::start(&format!(
            "{top}\n[listen.\"127.0.0.1:0\"]\n{listener}\n[upstream]\nup = {:?}\n{routes}\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n{route}\n",
            endpoint.name
        ));
        Self { weir, endpoint }
    }

    /// Sends a request and returns it as the endpoint received it.
    #[track_caller]
    fn send(&self, request: &str) -> Message {
        assert_eq!(self.weir.ask(request).text(), "hello");
        self.endpoint.requests().pop().unwrap()
    }

    /// Sends a GET with these field lines and returns it as the endpoint received it.
    #[track_caller]
    fn get(&self, lines: &str) -> Message {
        self.send(&get_with(lines))
    }
}

/// A GET with these field lines.
fn get_with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: weir.test\r\n{lines}\r\n\r\n")
}

/// Asserts that no field of the request has `text` in its value.
#[track_caller]
fn assert_no_value(request: &Message, text: &str) {
    let found = request.fields.iter().find(|field| field.1.contains(text));
    assert_eq!(found, None, "{request:?}");
}

/// The field names of a message in lower case.
fn names(message: &Message) -> Vec<String> {
    let names = message.fields.iter();
    names.map(|(name, _)| name.to_ascii_lowercase()).collect()
}

/// Names that CGI, WSGI or PHP map onto other names, each with a byte that they replace.
const ODD: [&str; 17] = [
    "X_User", "x_user", "_x", "x_", "X.User", "X!User", "X#User", "X$User", "X%User", "X&User",
    "X'User", "X*User", "X+User", "X^User", "X`User", "X|User", "X~User",
];

/// Odd names that map onto names that Weir sets or knows.
const IMPOSTERS: [&str; 20] = [
    "X_Client_Cert_Subject",
    "x_client-cert_san",
    "X.Client.Cert.Subject",
    "X_Forwarded_For",
    "X_FORWARDED_HOST",
    "X-Forwarded_Proto",
    "x_forwarded_port",
    "X_Real_IP",
    "X_Request_Id",
    "X_Original_Url",
    "X.Rewrite.Url",
    "True_Client_IP",
    "CF_Connecting_IP",
    "Content_Length",
    "Transfer_Encoding",
    "Content_Type",
    "X~Forwarded~For",
    "User_Agent",
    "Proxy_Authorization",
    "X_Envoy_External_Address",
];

#[test]
fn odd_names_are_dropped_and_counted() {
    let edge = Edge::new("", "", "");
    for (sent, name) in (1..).zip(ODD.iter().chain(&IMPOSTERS)) {
        let request = edge.get(&format!("X-Before: 1\r\n{name}: CN=admin\r\nX-After: 2"));
        assert_eq!(
            (request.field("X-Before"), request.field("X-After")),
            (Some("1"), Some("2"))
        );
        assert_no_value(&request, "CN=admin");
        eventually("the count", || {
            let dropped = edge
                .weir
                .metric("weir_core_fields_dropped_total{core=\"0\"}");
            (dropped == f64::from(sent)).then_some(())
        });
    }
}

#[test]
fn kept_odd_names_pass_unless_they_could_be_taken_for_others() {
    for edge in [
        Edge::new("", "underscores = \"keep\"", ""),
        Edge::new("", "", "underscores = \"keep\""),
        Edge::new("", "underscores = \"drop\"", "underscores = \"keep\""),
    ] {
        for name in ODD {
            let request = edge.get(&format!("{name}: CN=admin"));
            assert_eq!(request.field(name), Some("CN=admin"), "{name}");
        }
        for name in IMPOSTERS {
            let request = edge.get(&format!("{name}: CN=admin"));
            assert_no_value(&request, "CN=admin");
        }
        // To some endpoints these spellings are one field.
        let request = edge.get("X-User: a\r\nX_User: b\r\nY_Z: c\r\nY.Z: d\r\nZ_Z: e\r\nz_z: f");
        assert_eq!(request.field("X-User"), Some("a"));
        for name in ["X_User", "Y_Z", "Y.Z"] {
            assert_eq!(request.all(name), <[&str; 0]>::default(), "{name}");
        }
        assert_eq!(request.all("Z_Z"), ["e", "f"]);
        // `Connection` may still list them.
        let request = edge.get("Connection: x_user\r\nX_User: a\r\nX_Other: b");
        assert_eq!(
            (request.field("X_User"), request.field("X_Other")),
            (None, Some("b"))
        );
    }
    let edge = Edge::new("", "underscores = \"keep\"", "underscores = \"drop\"");
    for name in ODD {
        assert_eq!(
            edge.get(&format!("{name}: CN=admin")).field(name),
            None,
            "{name}"
        );
    }
}

#[test]
fn routes_see_what_the_listener_lets_through() {
    let config = |listener: &str| {
        format!(
            "[listen.\"127.0.0.1:0\"]\n{listener}\n\
             [[route]]\nmatch = {{ path = \"/*\", header = {{ X_Admin = true }} }}\nrespond = \"odd\"\n\
             [[route]]\nmatch = {{ path = \"/*\", header = {{ X-Forwarded-Proto = \"https\" }} }}\nrespond = \"forged\"\n\
             [[route]]\nmatch = \"/*\"\nrespond = \"plain\"\n"
        )
    };
    let ask = |weir: &Weir, line: &str| weir.ask(get_with(line)).text();
    let weir = Weir::start(&config(""));
    assert_eq!(ask(&weir, "X_Admin: 1"), "plain");
    assert_eq!(ask(&weir, "Connection: x_admin\r\nX_Admin: 1"), "plain");
    assert_eq!(ask(&weir, "X-Forwarded-Proto: https"), "plain");
    assert_eq!(
        ask(
            &weir,
            "Connection: x-forwarded-proto\r\nX-Forwarded-Proto: https"
        ),
        "plain"
    );
    let weir = Weir::start(&config("underscores = \"keep\""));
    assert_eq!(ask(&weir, "X_Admin: 1"), "odd");
    assert_eq!(ask(&weir, "X_Forwarded_Proto: https"), "plain");
    let weir = Weir::start(&format!("trusted_proxies = \"127.0.0.1\"\n{}", config("")));
    assert_eq!(ask(&weir, "X-Forwarded-Proto: https"), "forged");
}

/// To a CGI endpoint, `X_Role` is the `X-Role` that a route forbids.
#[test]
fn odd_names_do_not_pass_for_a_header_that_a_route_matches() {
    for (listener, route) in [
        ("underscores = \"keep\"", ""),
        ("", "underscores = \"keep\""),
    ] {
        let forbids = "[[route]]\nmatch = { path = \"/*\", header = { X-Role = \"admin\" } }\nrespond = 403\n";
        let edge = Edge::with_routes("", listener, forbids, route);
        let request = "POST / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\nX_Role: admin\r\n\
                       x.role: admin\r\nX_Other: a\r\n\r\n0\r\nX_Role: admin\r\n\r\n";
        let request = edge.send(request);
        assert_eq!(request.field("X_Other"), Some("a"));
        for name in ["X_Role", "x.role"] {
            assert_eq!(request.field(name), None, "{name}, {listener} {route}");
        }
        assert!(request.trailers.is_empty(), "{:?}", request.trailers);
    }
}

/// Names that only trusted proxies may send.
const FAMILY: [&str; 30] = [
    "X-Forwarded-For",
    "x-forwarded-port",
    "X-Forwarded-Server",
    "X-Forwarded-Prefix",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Anything",
    "X-Forwarded",
    "Forwarded-For",
    "X-Real-IP",
    "X-Original-URL",
    "X-Original-Forwarded-For",
    "X-Rewrite-URL",
    "True-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "CF-Visitor",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Client-IP",
    "Fastly-Client-IP",
    "X-Envoy-External-Address",
    "X-Envoy-Original-Path",
    "X-Azure-ClientIP",
    "Front-End-Https",
    "X-Client-Cert-Subject",
    "X-Client-Cert-San",
    "X-Client-Cert-Anything",
    "Proxy",
    "X-Scheme",
    "WL-Proxy-Client-IP",
];

#[test]
fn proxy_fields_are_dropped_from_untrusted_clients() {
    let edge = Edge::new("trusted_proxies = \"192.0.2.0/24\"", "", "");
    for name in FAMILY {
        for name in [
            name.to_owned(),
            name.to_ascii_lowercase(),
            name.to_ascii_uppercase(),
        ] {
            let request = edge.get(&format!("{name}: forged\r\nX-Kept: 1"));
            assert_eq!(request.field("X-Kept"), Some("1"));
            assert_no_value(&request, "forged");
        }
    }
    for name in [
        "X-Request-Id",
        "Forwarded",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
    ] {
        let request = edge.get(&format!("{name}: forged"));
        assert_eq!(request.all(name).len(), 1, "{name}");
        assert_ne!(request.field(name), Some("forged"), "{name}");
    }
    // Names that merely start alike pass.
    let request = edge.get(
        "X-Forward: a\r\nX-Real: b\r\nClient-Name: c\r\nX-Origin: d\r\nProxied: e\r\nX-Hostname: f",
    );
    for name in [
        "X-Forward",
        "X-Real",
        "Client-Name",
        "X-Origin",
        "Proxied",
        "X-Hostname",
    ] {
        assert!(request.field(name).is_some(), "{name}");
    }
}

#[test]
fn trusted_proxies_set_proxy_fields_in_the_configured_spelling() {
    let edge = Edge::new("trusted_proxies = \"127.0.0.1\"", "", "");
    let request = edge.get(
        "X-Forwarded-Port: 443\r\nX-Real-IP: 192.0.2.7\r\nX-Request-Id: outer\r\nX-Client-Cert-Subject: CN=a\r\n\
         Forwarded: for=203.0.113.1;host=forged\r\nProxy: forged\r\nX_Forwarded_For: forged",
    );
    for (name, value) in [
        ("X-Forwarded-Port", "443"),
        ("X-Real-IP", "192.0.2.7"),
        ("X-Request-Id", "outer"),
        ("X-Client-Cert-Subject", "CN=a"),
        ("Forwarded", "for=127.0.0.1;host=\"weir.test\";proto=http"),
    ] {
        assert_eq!(request.all(name), [value], "{name}");
    }
    assert_no_value(&request, "forged");
    let edge = Edge::new(
        "trusted_proxies = \"127.0.0.1\"\nforwarded_header = \"forwarded\"",
        "",
        "",
    );
    let request = edge.get(
        "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Proto: forged\r\nX-Forwarded-Host: forged\r\nX-Forwarded-Port: forged\r\n\
         Forwarded: for=\"[2001:db8::7]:4711\";proto=https;host=\"outer.test\", for=\"[::ffff:127.0.0.1]\"",
    );
    for (name, value) in [
        ("X-Forwarded-For", "2001:db8::7, 127.0.0.1, 127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "outer.test"),
        (
            "Forwarded",
            "for=\"[2001:db8::7]\";host=\"outer.test\";proto=https, for=127.0.0.1, for=127.0.0.1;host=\"weir.test\";proto=http",
        ),
    ] {
        assert_eq!(request.all(name), [value], "{name}");
    }
    assert_no_value(&request, "forged");
    assert_eq!(edge.weir.entry("/").text("client"), "2001:db8::7");
}

#[test]
fn nodes_of_trusted_proxies_are_made_canonical_and_quoted() {
    let edge = Edge::new("trusted_proxies = \"127.0.0.1\"", "", "");
    let request = edge.get(
        "X-Forwarded-For: \"evil, [2001:DB8::7]:443, _hidden\r\nX-Forwarded-For: ::ffff:192.0.2.7:1, ::ffff:192.0.2.7, 127.0.0.1:9\r\n\
         X-Forwarded-Host: a.test:81, c\\d\r\nX-Forwarded-Proto: https;x",
    );
    assert_eq!(
        request.all("X-Forwarded-For"),
        ["unknown, 2001:db8::7, _hidden, unknown, 192.0.2.7, 127.0.0.1, 127.0.0.1"]
    );
    assert_eq!(
        request.all("Forwarded"),
        [
            "for=unknown, for=\"[2001:db8::7]\", for=_hidden, for=unknown, for=192.0.2.7;host=\"a.test:81\", for=127.0.0.1, \
             for=127.0.0.1;host=\"weir.test\";proto=http"
        ]
    );
    assert_eq!(request.all("X-Forwarded-Proto"), ["http"]);
    assert_eq!(edge.weir.entry("/").text("client"), "192.0.2.7");
}

#[test]
fn connection_cannot_remove_proxy_fields() {
    let edge = Edge::new("trusted_proxies = \"127.0.0.1\"", "", "");
    let request = edge.get(
        "Connection: X-Forwarded-For, X-Forwarded-Port, True-Client-IP, X-Client-Cert-Subject, X-Mine\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Port: 443\r\nTrue-Client-IP: 192.0.2.7\r\nX-Client-Cert-Subject: CN=a\r\nX-Mine: b",
    );
    for name in [
        "X-Forwarded-Port",
        "True-Client-IP",
        "X-Client-Cert-Subject",
    ] {
        assert!(request.field(name).is_some(), "{name}");
    }
    assert_eq!(request.field("X-Mine"), None);
    assert_eq!(
        request.field("X-Forwarded-For"),
        Some("192.0.2.7, 127.0.0.1")
    );
}

#[test]
fn a_trusted_proxys_https_request_is_not_redirected() {
    let start = |top: &str| {
        Weir::start(&format!(
            "{top}\n[listen.\"127.0.0.1:0\"]\nredirect_https = true\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n"
        ))
    };
    let status = |weir: &Weir, lines: &str| weir.ask(get_with(lines)).status();
    let weir = start("");
    for lines in ["X: y", "X-Forwarded-Proto: https", "Forwarded: proto=https"] {
        assert_eq!(status(&weir, lines), 308, "{lines}");
    }
    let weir = start("trusted_proxies = \"127.0.0.1\"");
    for (lines, expected) in [
        ("X: y", 308),
        ("X-Forwarded-Proto: http", 308),
        ("X-Forwarded-Proto: https", 200),
        ("X-Forwarded-Proto: HTTPS", 200),
        ("X-Forwarded-Proto: wss", 200),
        ("X-Forwarded-Proto: httpss", 308),
        ("X_Forwarded_Proto: https", 308),
        ("Forwarded: for=192.0.2.7;proto=https", 308),
        // The client's own claim, before the proxy's.
        (
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https, http",
            308,
        ),
        (
            "X-Forwarded-For: 192.0.2.7, 127.0.0.1\r\nX-Forwarded-Proto: https, http",
            200,
        ),
    ] {
        assert_eq!(status(&weir, lines), expected, "{lines}");
    }
    let weir = start("trusted_proxies = \"127.0.0.1\"\nforwarded_header = \"forwarded\"");
    for (lines, expected) in [
        ("X-Forwarded-Proto: https", 308),
        ("Forwarded: for=192.0.2.7;proto=https", 200),
        ("Forwarded: proto=\"https\"", 200),
        (
            "Forwarded: for=1.1.1.1;proto=https, for=192.0.2.7;proto=http",
            308,
        ),
    ] {
        assert_eq!(status(&weir, lines), expected, "{lines}");
    }
}

#[test]
fn peers_on_a_trusted_unix_socket_are_believed() {
    for (trusted, is_believed) in [
        ("\"unix:SOCKET\"", true),
        ("[\"10.0.0.0/8\", \"unix:\"]", true),
        ("\"0.0.0.0/0\"", false),
    ] {
        let endpoint = Endpoint::answering(|_| ok("hello"));
        let dir = Weir::dir();
        let socket = dir.join("weir.sock");
        let trusted = trusted.replace("SOCKET", socket.to_str().unwrap());
        let weir = Weir::start_in(
            &dir,
            &format!(
                "trusted_proxies = {trusted}\n[listen.\"127.0.0.1:0\"]\n[listen.\"unix:{}\"]\n[upstream]\nup = {:?}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n",
                socket.display(),
                endpoint.name
            ),
        );
        let mut client = Conn::to_unix(&socket);
        client.send("GET /x HTTP/1.1\r\nHost: weir.test\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n");
        assert_eq!(client.response().text(), "hello");
        let request = endpoint.only_request();
        let expected = match is_believed {
            true => ["192.0.2.7, unknown", "https"],
            false => ["unknown", "http"],
        };
        let got = ["X-Forwarded-For", "X-Forwarded-Proto"].map(|name| request.field(name).unwrap());
        assert_eq!(got, expected, "{trusted}");
        if is_believed {
            assert_eq!(weir.entry("/x").text("client"), "192.0.2.7");
        }
    }
}

#[test]
fn via_is_kept_up_to_the_hop_limit() {
    let edge = Edge::new("", "", "");
    let hops = |n: usize| vec!["1.1 other"; n].join(", ");
    let request = edge.get(&format!("Via: {}\r\nVia: 1.1 last (a comment)", hops(31)));
    assert_eq!(request.all("Via")[1], "1.1 last (a comment)");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\nVia: {}\r\n\r\n",
        hops(33)
    );
    edge.weir
        .ask(request)
        .expect_refusal(508, "loop", "proxy_loop_detected");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\n{}\r\n",
        "Via: 1.1 other\r\n".repeat(33)
    );
    edge.weir
        .ask(request)
        .expect_refusal(508, "loop", "proxy_loop_detected");
}

/// Answers with the names of the request's fields and trailers.
async fn answer_with_names(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let trailers = body
        .collect()
        .await
        .unwrap()
        .trailers()
        .cloned()
        .unwrap_or_default();
    let list = |fields: &HeaderMap| {
        fields
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    answer(format!("{}\n{}", list(&head.headers), list(&trailers)))
}

/// Sends these names in head and trailers through every pairing of protocols and passes the names that arrive to
/// `check`.
fn check_arriving_names(
    keys: &str,
    content_type: &str,
    sent: &[&'static str],
    check: impl Fn(Protocol, &[&str], &[&str]),
) {
    for (down, up) in PAIRS {
        run(async {
            let server = Server::start(up, answer_with_names).await;
            let weir = Weir::start(&routed(keys, std::slice::from_ref(&server.name), ""));
            let mut client = Client::connect(down, weir.address).await;
            let mut asked = request("PUT", "/")
                .header("te", "trailers")
                .header("trailer", sent.join(", "));
            if down == Protocol::Http1 {
                asked = asked.header("connection", "te");
            }
            asked = asked.header("content-type", content_type);
            let mut trailers = HeaderMap::new();
            for name in sent {
                asked = asked.header(*name, "forged");
                trailers.append(HeaderName::from_static(name), "forged".parse().unwrap());
            }
            let body = Body::trailed("body".into(), 10, trailers);
            let text = client
                .ask(asked.body(body).unwrap())
                .await
                .text()
                .to_owned();
            let (fields, trailers) = text.split_once('\n').unwrap();
            let (fields, trailers): (Vec<_>, Vec<_>) =
                (fields.split(' ').collect(), trailers.split(' ').collect());
            check(down, &fields, &trailers);
        });
    }
}

const IN_TRAILERS: [&str; 16] = [
    "x-sum",
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-client-cert-subject",
    "x-client-cert-san",
    "true-client-ip",
    "cf-connecting-ip",
    "x-request-id",
    "x_client_cert_subject",
    "x_forwarded_for",
    "x.real.ip",
    "x_user",
    "x!user",
];

#[test]
fn trailers_are_filtered_like_heads_in_every_pairing() {
    check_arriving_names("", "text/plain", &IN_TRAILERS, |down, fields, trailers| {
        assert_eq!(trailers, ["x-sum"], "{down:?}");
        let odd = fields.iter().find(|name| name.contains(['_', '.', '!']));
        assert_eq!(odd, None, "{down:?}");
        assert!(!fields.iter().any(|name| matches!(
            *name,
            "x-real-ip" | "x-client-cert-subject" | "x-original-url"
        )));
    });
}

#[test]
fn proxy_fields_are_dropped_from_trailers_of_trusted_proxies() {
    let keys = "trusted_proxies = \"127.0.0.1\"";
    check_arriving_names(
        keys,
        "text/plain",
        &IN_TRAILERS,
        |down, fields, trailers| {
            assert_eq!(trailers, ["x-sum"], "{down:?}");
            assert!(fields.contains(&"x-real-ip"));
        },
    );
}

#[test]
fn grpc_metadata_keeps_underscores_and_dots_unless_they_collide() {
    let sent = [
        "x_user",
        "a.b",
        "q!r",
        "x_forwarded_for",
        "content_length",
        "y-z",
        "y_z",
        "x-sum",
    ];
    check_arriving_names(
        "",
        "application/grpc+proto",
        &sent,
        |down, fields, trailers| {
            for name in ["x_user", "a.b", "y-z", "x-sum"] {
                assert!(
                    fields.contains(&name) && trailers.contains(&name),
                    "{name}, {down:?}: {fields:?}, {trailers:?}"
                );
            }
            for name in ["q!r", "x_forwarded_for", "content_length", "y_z"] {
                assert!(
                    !fields.contains(&name) && !trailers.contains(&name),
                    "{name}, {down:?}"
                );
            }
        },
    );
}

#[test]
fn headers_that_routes_match_are_dropped_from_trailers() {
    let forbids =
        "[[route]]\nmatch = { path = \"/*\", header = { X-Internal = \"1\" } }\nrespond = 403\n";
    let edge = Edge::with_routes("", "", forbids, "");
    let request = "POST / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-INTERNAL: 1\r\nX-Other: 2\r\n\r\n";
    let trailers = edge.send(request).trailers;
    assert_eq!(trailers, [("X-Other".to_owned(), "2".to_owned())]);
}

/// Raw trailers that a library would not send.
#[test]
fn known_names_are_dropped_from_trailers() {
    let edge = Edge::new("", "underscores = \"keep\"", "");
    let request = edge.send(
        "POST / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\
         Host: forged\r\nContent-Length: 5\r\nTransfer-Encoding: forged\r\nConnection: forged\r\nAuthorization: forged\r\n\
         Cookie: forged\r\nX-Request-Id: forged\r\nUser-Agent: forged\r\nOrigin: forged\r\nSec-WebSocket-Key: forged\r\n\
         X_Host: forged\r\nContent_Type: forged\r\nVia: forged\r\nAccept: forged\r\nX_Sum: 1\r\nX-Sum-Too: 2\r\n\r\n",
    );
    let trailers: Vec<_> = request
        .trailers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(trailers, [("X_Sum", "1"), ("X-Sum-Too", "2")]);
    assert_eq!(
        names(&request)
            .iter()
            .filter(|name| *name == "host")
            .count(),
        1
    );
}
