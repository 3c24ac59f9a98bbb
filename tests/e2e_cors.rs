//! `cors`: preflights, the fields of answers, and their order among the policies.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use e2e::*;

const PAGE: &str = "https://app.example.com";

/// A request from a page of this origin.
fn from(origin: &str, line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: api.example.com\r\nOrigin: {origin}\r\n{fields}\r\n")
}

/// A preflight of `method` from a page of this origin.
fn preflight(origin: &str, path: &str, method: &str) -> String {
    let asks = format!(
        "Access-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: x-a\r\n"
    );
    from(origin, &format!("OPTIONS {path}"), &asks)
}

/// The names of the CORS fields that an answer has, and Vary.
fn cors_fields(message: &Message) -> Vec<String> {
    let named =
        |(name, value): &(String, String)| format!("{}: {value}", name.to_ascii_lowercase());
    let is_cors = |line: &String| line.starts_with("access-control-") || line.starts_with("vary");
    let mut lines: Vec<_> = message.fields.iter().map(named).filter(is_cors).collect();
    lines.sort();
    lines
}

/// An endpoint with CORS fields of its own.
fn endpoint() -> Endpoint {
    let own =
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-Secret\r\nVary: Accept";
    Endpoint::answering(move |_| format!("HTTP/1.1 200 OK\r\n{own}\r\nContent-Length: 2\r\n\r\nok"))
}

#[test]
fn answers_for_listed_origins_can_be_read() {
    let endpoint = endpoint();
    let weir = Weir::with(
        &format!("cors = {{ origins = {PAGE:?}, credentials = true, expose = \"X-Request-Id\" }}"),
        &[&endpoint],
    );
    let answer = weir.ask(from(PAGE, "GET /", ""));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!(
        cors_fields(&answer),
        [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://app.example.com",
            "access-control-expose-headers: X-Request-Id",
            "vary: Accept, Origin",
        ]
    );
    for request in [from("https://evil.test", "GET /", ""), get("/")] {
        let answer = weir.ask(request);
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
        assert_eq!(cors_fields(&answer), ["vary: Accept, Origin"]);
    }
    assert_eq!(endpoint.requests().len(), 3);
}

#[test]
fn weir_answers_preflights() {
    let endpoint = endpoint();
    let weir = Weir::with(
        &format!("cors = {{ origins = {PAGE:?}, max_age = \"10m\" }}"),
        &[&endpoint],
    );
    let mut client = weir.connect();
    for _ in 0..2 {
        client.send(preflight(PAGE, "/a", "DELETE"));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text().as_str()), (204, ""));
        assert_eq!(answer.field("Content-Length"), None);
        assert_eq!(
            cors_fields(&answer),
            [
                "access-control-allow-headers: x-a",
                "access-control-allow-methods: DELETE",
                "access-control-allow-origin: https://app.example.com",
                "access-control-max-age: 600",
                "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            ]
        );
    }
    client.send(preflight("https://evil.test", "/evil", "DELETE"));
    let answer = client.response();
    answer.expect_refusal(403, "origin_denied", "http_request_denied");
    assert_eq!(
        cors_fields(&answer),
        ["vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]
    );
    let entry = weir.entry("/evil");
    assert_eq!(
        (entry.text("reason"), entry.text("policy")),
        ("origin_denied".to_owned(), "cors".to_owned())
    );
    assert_eq!(weir.entry("/a").text("policy"), "cors");
    assert!(endpoint.requests().is_empty());
    // Without the question for a method it is the endpoint's business.
    client.send(from(PAGE, "OPTIONS /a", ""));
    assert_eq!(client.response().status(), 200);
    assert_eq!(endpoint.only_request().method(), "OPTIONS");
}

#[test]
fn answers_of_weirs_own_can_be_read_too() {
    let weir = Weir::start(&format!(
        "cors = {PAGE:?}\n[upstream]\nnobody = [\"{}\"]\n[[route]]\nmatch = \"/down\"\nto = \"nobody\"\n\
         [[route]]\nmatch = \"/text\"\nrespond = \"text\"\n[[route]]\nmatch = \"/moved\"\nredirect = \"/text\"\n\
         [[route]]\nmatch = \"/closed\"\nrespond = \"text\"\ncors = \"off\"\n",
        free_address("127.0.0.1"),
    ));
    let readable = [
        "access-control-allow-origin: https://app.example.com",
        "vary: Origin",
    ];
    for (path, status) in [("/down", 502), ("/text", 200), ("/moved", 307)] {
        let answer = weir.ask(from(PAGE, &format!("GET {path}"), ""));
        assert_eq!(answer.status(), status);
        assert_eq!(cors_fields(&answer), readable, "{path}");
    }
    let closed = weir.ask(from(PAGE, "GET /closed", ""));
    assert_eq!(cors_fields(&closed), [""; 0]);
}

/// The same over HTTP/2, whatever the endpoint speaks.
#[test]
fn every_pairing_of_protocols() {
    use peers::*;
    for (down, up) in PAIRS {
        run(async {
            let handler = |_| async {
                let mut answer = answer("ok");
                let star = http::HeaderValue::from_static("*");
                answer
                    .headers_mut()
                    .insert("access-control-allow-origin", star);
                answer
            };
            let server = Server::start(up, handler).await;
            let weir = Weir::start(&routed(
                &format!("cors = {PAGE:?}"),
                std::slice::from_ref(&server.name),
                "",
            ));
            let mut client = Client::connect(down, weir.address).await;
            let ask = |method| request(method, "/").header("origin", PAGE);
            let got = client.ask(ask("GET").body(Body::empty()).unwrap()).await;
            assert_eq!(got.status, 200, "{down:?} {up:?}");
            let origins: Vec<_> = got
                .headers
                .get_all("access-control-allow-origin")
                .iter()
                .collect();
            assert_eq!(origins, [PAGE]);
            let preflight = ask("OPTIONS").header("access-control-request-method", "PUT");
            let got = client.ask(preflight.body(Body::empty()).unwrap()).await;
            assert_eq!(
                (got.status, got.field("access-control-allow-methods")),
                (204, Some("PUT"))
            );
            assert_eq!(got.field("access-control-allow-origin"), Some(PAGE));
        });
    }
}

#[test]
fn a_preflight_with_a_body_leaves_the_connection_usable() {
    let endpoint = endpoint();
    let weir = Weir::with(&format!("cors = {PAGE:?}"), &[&endpoint]);
    let mut client = weir.connect();
    let request = preflight(PAGE, "/", "PUT").replace("Origin:", "Content-Length: 4\r\nOrigin:");
    client.send(format!("{request}body"));
    assert_eq!(client.response().status(), 204);
    client.send(get("/"));
    assert_eq!(client.response().status(), 200);
}

#[test]
fn explain_says_what_becomes_of_an_origin() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    std::fs::write(&file, format!("cors = {PAGE:?}\n[listen.\"127.0.0.1:8080\"]\n[[route]]\nmatch = \"/*\"\nrespond = 200\n")).unwrap();
    let explain = |method: &str, fields: &[&str]| {
        let mut arguments = vec![
            "explain",
            file.to_str().unwrap(),
            method,
            "http://a.test:8080/",
        ];
        for field in fields {
            arguments.extend(["-H", field]);
        }
        let (code, output) = run_weir(&arguments);
        assert_eq!(code, Some(0), "{output}");
        output
    };
    let allowed = explain("GET", &["Origin: https://app.example.com"]);
    assert!(
        allowed.contains("cors lets pages of https://app.example.com read the answer"),
        "{allowed}"
    );
    let ask = "Access-Control-Request-Method: PUT";
    let allowed = explain("OPTIONS", &["Origin: https://app.example.com", ask]);
    assert!(
        allowed.contains("cors answers: allows the preflight"),
        "{allowed}"
    );
    let denied = explain("OPTIONS", &["Origin: https://evil.test", ask]);
    assert!(denied.contains("403, reason origin_denied"), "{denied}");
    let _ = std::fs::remove_dir_all(dir);
}
