//! Which fields of a request clients may send: names that endpoints take for others, and what only proxies may say.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use e2e::*;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use peers::{Body, Client, PAIRS, Server, Speaks, answer, request, routed, run};

/// An endpoint behind a route, with these keys at the top level, for the listener and for the route.
struct Way {
    // Dropped first, so that its connections end before the endpoint waits for that.
    weir: Weir,
    endpoint: Endpoint,
}

impl Way {
    fn new(top: &str, listener: &str, route: &str) -> Self {
        let endpoint = Endpoint::answering(|_| ok("hello"));
        let weir = Weir::start(&format!(
            "{top}\n[listen.\"127.0.0.1:0\"]\n{listener}\n[upstream]\nup = {:?}\n[[route]]\nmatch = \"/*\"\nto = \"up\"\n{route}\n",
            endpoint.name
        ));
        Self { weir, endpoint }
    }

    /// The request as the endpoint gets it.
    #[track_caller]
    fn send(&self, request: &str) -> Message {
        assert_eq!(self.weir.ask(request).text(), "hello");
        self.endpoint.seen().pop().unwrap()
    }

    /// A request with these field lines, as the endpoint gets it.
    #[track_caller]
    fn with(&self, lines: &str) -> Message {
        self.send(&format!(
            "GET / HTTP/1.1\r\nHost: weir.test\r\n{lines}\r\n\r\n"
        ))
    }
}

/// Names of fields that are there, in lower case.
fn names(message: &Message) -> Vec<String> {
    let names = message.fields.iter();
    names.map(|(name, _)| name.to_ascii_lowercase()).collect()
}

/// Names that CGI, WSGI or PHP fold onto others, each with a byte that they fold.
const ODD: [&str; 17] = [
    "X_User", "x_user", "_x", "x_", "X.User", "X!User", "X#User", "X$User", "X%User", "X&User",
    "X'User", "X*User", "X+User", "X^User", "X`User", "X|User", "X~User",
];

/// Odd names that fold onto ones that Weir sets or knows.
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
    let way = Way::new("", "", "");
    for (sent, name) in (1..).zip(ODD.iter().chain(&IMPOSTERS)) {
        let request = way.with(&format!("X-Before: 1\r\n{name}: CN=admin\r\nX-After: 2"));
        assert_eq!(
            (request.field("X-Before"), request.field("X-After")),
            (Some("1"), Some("2"))
        );
        assert!(
            !request
                .fields
                .iter()
                .any(|(_, value)| value.contains("CN=admin")),
            "{name}: {request:?}"
        );
        eventually("the count", || {
            let dropped = way
                .weir
                .metric("weir_core_fields_dropped_total{core=\"0\"}");
            (dropped == f64::from(sent)).then_some(())
        });
    }
}

#[test]
fn kept_odd_names_pass_unless_they_could_be_taken_for_others() {
    for way in [
        Way::new("", "underscores = \"keep\"", ""),
        Way::new("", "", "underscores = \"keep\""),
        Way::new("", "underscores = \"drop\"", "underscores = \"keep\""),
    ] {
        for name in ODD {
            let request = way.with(&format!("{name}: CN=admin"));
            assert_eq!(request.field(name), Some("CN=admin"), "{name}");
        }
        for name in IMPOSTERS {
            let request = way.with(&format!("{name}: CN=admin"));
            assert!(
                !request
                    .fields
                    .iter()
                    .any(|(_, value)| value.contains("CN=admin")),
                "{name}: {request:?}"
            );
        }
        // Two spellings of one name are one field to some endpoints.
        let request = way.with("X-User: a\r\nX_User: b\r\nY_Z: c\r\nY.Z: d\r\nZ_Z: e\r\nz_z: f");
        assert_eq!(request.field("X-User"), Some("a"));
        for name in ["X_User", "Y_Z", "Y.Z"] {
            assert_eq!(request.all(name), <[&str; 0]>::default(), "{name}");
        }
        assert_eq!(request.all("Z_Z"), ["e", "f"]);
        // Connection can still name one.
        let request = way.with("Connection: x_user\r\nX_User: a\r\nX_Other: b");
        assert_eq!(
            (request.field("X_User"), request.field("X_Other")),
            (None, Some("b"))
        );
    }
    let way = Way::new("", "underscores = \"keep\"", "underscores = \"drop\"");
    for name in ODD {
        assert_eq!(
            way.with(&format!("{name}: CN=admin")).field(name),
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
             [[route]]\nmatch = {{ path = \"/*\", header = {{ X_Admin = true }} }}\nrespond = \"odd\"\nunderscores_off = 1\n\
             [[route]]\nmatch = {{ path = \"/*\", header = {{ X-Forwarded-Proto = \"https\" }} }}\nrespond = \"forged\"\n\
             [[route]]\nmatch = \"/*\"\nrespond = \"plain\"\n"
        )
        .replace("underscores_off = 1\n", "")
    };
    let ask = |weir: &Weir, line: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: weir.test\r\n{line}\r\n\r\n");
        weir.ask(request).text()
    };
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

/// To an endpoint of CGI, `X_Role` is the `X-Role` that a route forbids.
#[test]
fn odd_names_are_not_taken_for_what_a_route_looks_at() {
    for (listener, route) in [
        ("underscores = \"keep\"", ""),
        ("", "underscores = \"keep\""),
    ] {
        let endpoint = Endpoint::answering(|_| ok("hello"));
        let weir = Weir::start(&format!(
            "[listen.\"127.0.0.1:0\"]\n{listen}\n[upstream]\nup = {name:?}\n\
             [[route]]\nmatch = {{ path = \"/*\", header = {{ X-Role = \"admin\" }} }}\nrespond = 403\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n{route}\n",
            listen = listener,
            name = endpoint.name
        ));
        let request = "POST / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\nX_Role: admin\r\n\
                       x.role: admin\r\nX_Other: a\r\n\r\n0\r\nX_Role: admin\r\n\r\n";
        assert_eq!(weir.ask(request).text(), "hello");
        let request = endpoint.only();
        assert_eq!(request.field("X_Other"), Some("a"));
        for name in ["X_Role", "x.role"] {
            assert_eq!(request.field(name), None, "{name}, {listener} {route}");
        }
        assert!(request.trailers.is_empty(), "{:?}", request.trailers);
    }
}

/// What only proxies may say.
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
fn what_only_proxies_may_say_is_dropped_from_others() {
    let way = Way::new("trusted_proxies = \"192.0.2.0/24\"", "", "");
    for name in FAMILY {
        for name in [
            name.to_owned(),
            name.to_ascii_lowercase(),
            name.to_ascii_uppercase(),
        ] {
            let request = way.with(&format!("{name}: forged\r\nX-Kept: 1"));
            assert_eq!(request.field("X-Kept"), Some("1"));
            assert!(
                !request
                    .fields
                    .iter()
                    .any(|(_, value)| value.contains("forged")),
                "{name}: {request:?}"
            );
        }
    }
    for name in [
        "X-Request-Id",
        "Forwarded",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
    ] {
        let request = way.with(&format!("{name}: forged"));
        assert_eq!(request.all(name).len(), 1, "{name}");
        assert_ne!(request.field(name), Some("forged"), "{name}");
    }
    // Names that only begin alike are anybody's.
    let request = way.with(
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
fn trusted_proxies_own_the_family_but_for_the_other_spelling() {
    let way = Way::new("trusted_proxies = \"127.0.0.1\"", "", "");
    let request = way.with(
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
    assert!(
        !request
            .fields
            .iter()
            .any(|(_, value)| value.contains("forged")),
        "{request:?}"
    );
    let way = Way::new(
        "trusted_proxies = \"127.0.0.1\"\nforwarded_header = \"forwarded\"",
        "",
        "",
    );
    let request = way.with(
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
    assert!(
        !request
            .fields
            .iter()
            .any(|(_, value)| value.contains("forged")),
        "{request:?}"
    );
    assert_eq!(way.weir.entry("/").text("client"), "2001:db8::7");
}

#[test]
fn nodes_of_trusted_proxies_are_made_canonical_and_quoted() {
    let way = Way::new("trusted_proxies = \"127.0.0.1\"", "", "");
    let request = way.with(
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
    assert_eq!(way.weir.entry("/").text("client"), "192.0.2.7");
}

#[test]
fn connection_cannot_name_what_proxies_say() {
    let way = Way::new("trusted_proxies = \"127.0.0.1\"", "", "");
    let request = way.with(
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
fn a_trusted_proxy_that_was_asked_over_https_is_not_sent_there() {
    let start = |top: &str| {
        Weir::start(&format!(
            "{top}\n[listen.\"127.0.0.1:0\"]\nredirect_https = true\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n"
        ))
    };
    let status = |weir: &Weir, lines: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: weir.test\r\n{lines}\r\n\r\n");
        weir.ask(request).status()
    };
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
        // The client's own, before what the proxy has added.
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
        let request = endpoint.only();
        let expected = match is_believed {
            true => ["192.0.2.7, unknown", "https"],
            false => ["unknown", "http"],
        };
        let is = ["X-Forwarded-For", "X-Forwarded-Proto"].map(|name| request.field(name).unwrap());
        assert_eq!(is, expected, "{trusted}");
        if is_believed {
            assert_eq!(weir.entry("/x").text("client"), "192.0.2.7");
        }
    }
}

#[test]
fn via_is_kept_up_to_as_many_hops_as_a_way_may_have() {
    let way = Way::new("", "", "");
    let hops = |n: usize| vec!["1.1 other"; n].join(", ");
    let request = way.with(&format!("Via: {}\r\nVia: 1.1 last (a comment)", hops(31)));
    assert_eq!(request.all("Via")[1], "1.1 last (a comment)");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\nVia: {}\r\n\r\n",
        hops(33)
    );
    way.weir
        .ask(request)
        .expect_refusal(508, "loop", "proxy_loop_detected");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: weir.test\r\n{}\r\n",
        "Via: 1.1 other\r\n".repeat(33)
    );
    way.weir
        .ask(request)
        .expect_refusal(508, "loop", "proxy_loop_detected");
}

/// Answers with the names of the request's fields and trailers.
async fn named(request: Request<Incoming>) -> Response<Body> {
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

/// Asks through every pairing of protocols with these names in head and trailers, and gives those that have arrived.
fn arriving(
    keys: &str,
    content_type: &str,
    sent: &[&'static str],
    check: impl Fn(Speaks, &[&str], &[&str]),
) {
    for (down, up) in PAIRS {
        run(async {
            let server = Server::start(up, named).await;
            let weir = Weir::start(&routed(keys, std::slice::from_ref(&server.name), ""));
            let mut client = Client::connect(down, weir.address).await;
            let mut asked = request("PUT", "/")
                .header("te", "trailers")
                .header("trailer", sent.join(", "));
            if down == Speaks::Http1 {
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
fn trailers_meet_the_same_table_as_heads_in_every_pairing() {
    arriving("", "text/plain", &IN_TRAILERS, |down, fields, trailers| {
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
fn what_trusted_proxies_may_say_they_do_not_say_in_trailers() {
    let keys = "trusted_proxies = \"127.0.0.1\"";
    arriving(
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
fn calls_of_grpc_keep_underscores_and_dots_that_collide_with_nothing() {
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
    arriving(
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
fn what_decides_on_a_route_does_not_pass_in_trailers() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::start(&format!(
        "[upstream]\nup = {:?}\n[[route]]\nmatch = {{ path = \"/*\", header = {{ X-Internal = \"1\" }} }}\nrespond = 403\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        endpoint.name
    ));
    let request = "POST / HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-INTERNAL: 1\r\nX-Other: 2\r\n\r\n";
    assert_eq!(weir.ask(request).text(), "hello");
    let trailers = &endpoint.only().trailers;
    assert_eq!(*trailers, [("X-Other".to_owned(), "2".to_owned())]);
}

/// Trailers that a library would not send, in bytes.
#[test]
fn known_names_are_dropped_from_trailers() {
    let way = Way::new("", "underscores = \"keep\"", "");
    let request = way.send(
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
