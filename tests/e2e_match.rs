//! Routes by listener, client, cookie, regular expression and claims, and the host that endpoints get.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use e2e::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Routes that answer with their names.
fn named(routes: &[(&str, &str)]) -> String {
    let route = |(name, keys): &(&str, &str)| {
        format!("[[route]]\nname = \"{name}\"\nrespond = \"{name}\"\n{keys}\n")
    };
    routes.iter().map(route).collect()
}

/// A GET with these field lines.
fn with(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: weir.test\r\n{lines}\r\n")
}

/// A Weir with the file `secret` beside its configuration.
fn with_secret(config: &str) -> Weir {
    let dir = Weir::dir();
    std::fs::write(dir.join("secret"), SECRET).unwrap();
    Weir::start_in(&dir, config)
}

/// An Authorization field with a token of these claims.
fn bearer(secret: &[u8], claims: &str) -> String {
    let text = format!("{{\"iss\":\"https://idp.test/\",\"exp\":99999999999,{claims}}}");
    let claims: serde_json::Value = serde_json::from_str(&text).unwrap();
    let key = EncodingKey::from_secret(secret);
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    format!("Authorization: Bearer {token}\r\n")
}

const TOKENS: &str = "[policy.token]\njwt = { secret_file = \"secret\", issuer = \"https://idp.test/\", \
     audience = \"any\", on_missing = \"pass\" }\n";

#[test]
fn gold_and_everybody_else_have_two_routes_on_one_path() {
    let weir = with_secret(&format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\nip = {{ deny = [\"192.0.2.0/24\"] }}\n{TOKENS}{}",
        named(&[
            (
                "gold",
                "match = { path = \"/p\", claim = { plan = [\"gold\", \"platinum\"] } }\nuse = \"token\""
            ),
            (
                "writers",
                "match = { path = \"/p\", claim = { scope = [\"read\", \"write\"] } }\nuse = \"token\""
            ),
            ("everybody", "match = \"/p\"\nuse = \"token\""),
            (
                "strict",
                "match = { path = \"/q\", claim = { plan = \"gold\" } }\nuse = \"token\""
            ),
        ])
    ));
    let gold = bearer(SECRET, "\"plan\":\"gold\"");
    let silver = bearer(SECRET, "\"plan\":\"silver\",\"scope\":\"read\"");
    let writer = bearer(SECRET, "\"plan\":\"silver\",\"scope\":\"write x read\"");
    let forged = bearer(b"another secret of thirty-two bytes!", "\"plan\":\"gold\"");
    // The second round finds valid tokens in the core's cache.
    for _ in 0..2 {
        let mut client = weir.connect();
        for (path, token, expected) in [
            ("/p", &*gold, "gold"),
            ("/p", &*silver, "everybody"),
            ("/p", &*writer, "writers"),
            ("/p", "", "everybody"),
            ("/q", &*gold, "strict"),
        ] {
            client.send(with(path, token));
            assert_eq!(client.response().text(), expected, "{path} {token}");
        }
        for token in [&*silver, ""] {
            client.send(with("/q", token));
            client
                .response()
                .expect_refusal(404, "no_route", "destination_not_found");
        }
        // No claim holds, and the last route refuses the token itself.
        client.send(with("/p", &forged));
        let refused = client.response();
        refused.expect_refusal(401, "token_invalid", "http_request_denied");
        assert!(refused.field("WWW-Authenticate").is_some());
        // All candidates share the address rules, which go before the token.
        client.send(with(
            "/p",
            &format!("X-Forwarded-For: 192.0.2.1\r\n{forged}"),
        ));
        let denied = client.response();
        denied.expect_refusal(403, "ip_denied", "http_request_denied");
    }
    let entry = weir.entry_with("reason", "token_invalid");
    assert_eq!(
        (&*entry.text("route"), &*entry.text("policy")),
        ("everybody", "jwt")
    );
}

#[test]
fn claims_count_by_the_rules_of_their_route() {
    let rules = |issuer: &str| {
        format!(
            "jwt = {{ secret_file = \"secret\", issuer = \"{issuer}\", audience = \"any\", on_missing = \"pass\" }}"
        )
    };
    let other = format!(
        "match = {{ path = \"/*\", claim = {{ plan = \"gold\" }} }}\n{}",
        rules("https://other.test/")
    );
    let own = format!(
        "match = {{ path = \"/*\", claim = {{ plan = \"silver\" }} }}\n{}",
        rules("https://idp.test/")
    );
    let weir = with_secret(&named(&[
        ("other", &other),
        ("own", &own),
        ("rest", "match = \"/*\""),
    ]));
    for (claims, expected) in [("silver", "own"), ("gold", "rest")] {
        let token = bearer(SECRET, &format!("\"plan\":\"{claims}\""));
        assert_eq!(weir.ask(with("/", &token)).text(), expected);
    }
}

#[test]
fn routes_match_by_listener_client_cookie_and_expression() {
    let addresses = [free_address("127.0.0.1"), free_address("127.0.0.1")];
    let [first, second] = addresses;
    let weir = Weir::start(&format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n[listen.\"{first}\"]\n[listen.\"{second}\"]\n{}",
        named(&[
            (
                "inside",
                &format!(
                    "match = {{ path = \"/*\", listener = \"{second}\", source = [\"10.0.0.0/8\", \"127.0.0.0/8\"] }}"
                )
            ),
            (
                "canary",
                "match = { path = \"/*\", cookie = { canary = \"1\" } }"
            ),
            ("version", "match = { path = { regex = \"/v[0-9]+/.*\" } }"),
            ("v1", "match = \"/v1/health\""),
            ("rest", "match = \"/*\""),
        ])
    ));
    for (address, path, lines, expected) in [
        (second, "/x", "", "inside"),
        (second, "/x", "X-Forwarded-For: 10.1.2.3\r\n", "inside"),
        (second, "/x", "X-Forwarded-For: 192.0.2.1\r\n", "rest"),
        (first, "/x", "", "rest"),
        (first, "/x", "Cookie: a=b; canary=1\r\n", "canary"),
        (first, "/x", "Cookie: a=b\r\nCookie: canary=1\r\n", "canary"),
        (first, "/x", "Cookie: canary=10\r\n", "rest"),
        (first, "/v2/x", "", "version"),
        (first, "/x/../v22//%78", "", "version"),
        (first, "/v/x", "", "rest"),
        (first, "/v1/health", "", "v1"),
        (first, "/v1/health/", "", "version"),
    ] {
        let mut client = Conn::to(address);
        client.send(with(path, lines));
        assert_eq!(
            client.response().text(),
            expected,
            "{address} {path} {lines}"
        );
    }
    drop(weir);
}

#[test]
fn endpoints_get_the_host_of_the_route_or_the_upstream() {
    let lost = Endpoint::script(|conn| {
        conn.request();
    });
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let weir = Weir::start(&format!(
        "retries = {{ count = 2, backoff = \"1ms\", budget_min = 100 }}\n[upstream.up]\nservers = {:?}\nhost = \"App.internal:8080\"\n\
         [[route]]\nmatch = \"/own/*\"\nto = \"up\"\nhost = \"[::1]\"\nstrip = \"/own\"\n\
         [[route]]\nmatch = \"/*\"\nto = \"up\"\n",
        [&lost.name, &endpoint.name]
    ));
    for (request, host) in [
        (with("/a", ""), "app.internal:8080"),
        (with("/own/a", ""), "[::1]"),
        (
            "GET http://weir.test/a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "app.internal:8080",
        ),
        ("GET /a HTTP/1.0\r\n\r\n".to_owned(), "app.internal:8080"),
    ] {
        for _ in 0..2 {
            let before = endpoint.requests().len();
            assert_eq!(weir.ask(&request).text(), "hello");
            let seen = endpoint.requests().pop().unwrap();
            assert_eq!(endpoint.requests().len(), before + 1);
            assert_eq!(seen.all("host"), [host], "{request}");
            assert_eq!(seen.start, "GET /a HTTP/1.1");
            let named = match request.contains("1.0") {
                true => vec![],
                false => vec!["weir.test"],
            };
            assert_eq!(seen.all("x-forwarded-host"), named, "{request}");
        }
    }
}

#[test]
fn endpoints_over_http2_get_the_host_as_the_authority() {
    use peers::frames::{Listener, connect, respond};
    use peers::{request, routed, run, within};

    run(async {
        let listener = Listener::bind().await;
        let weir = Weir::start(&routed(
            "",
            std::slice::from_ref(&listener.name),
            "host = \"app.internal\"",
        ));
        let mut client = connect(weir.address).await;
        let sent = client.send(request("GET", "/a").body(()).unwrap(), true).0;
        let mut endpoint = listener.accept().await;
        let (seen, mut answer) = endpoint.next().await;
        assert_eq!(seen.uri().authority().unwrap(), "app.internal");
        assert!(!seen.headers().contains_key("host"));
        let forwarded = seen.headers().get("x-forwarded-host").unwrap();
        assert_ne!(forwarded, "app.internal");
        respond(&mut answer, 200, "hello");
        assert_eq!(within(sent).await.unwrap().status(), 200);
    });
}
