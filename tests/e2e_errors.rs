//! `errors`: pages in place of Weir's error answers and of endpoints'.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use e2e::*;

/// An endpoint that answers with the status that the path names, and with fields and a body of its own.
fn failing() -> Endpoint {
    Endpoint::answering(|request| {
        let status = request.target().trim_start_matches('/');
        format!(
            "HTTP/1.1 {status} Own\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\nRetry-After: 7\r\n\
             WWW-Authenticate: Basic\r\nAccess-Control-Allow-Origin: *\r\nSet-Cookie: a=b\r\nETag: \"e\"\r\n\
             Content-Length: 6\r\n\r\nsecret"
        )
    })
}

/// A page for `key`, whose text is the key and the variables.
fn page(key: &str, more: &str) -> String {
    format!(
        "{key} = {{ body = \"<p>{key} {{status}} {{reason}} {{request_id}}\", content_type = \"text/html\"{more} }}"
    )
}

#[test]
fn pages_replace_weirs_own_errors() {
    let nobody = free_address("127.0.0.1");
    let weir = Weir::start(&format!(
        "errors = {{ {}, {} }}\n[upstream]\nnobody = [\"{nobody}\"]\n[[route]]\nmatch = \"/a\"\nto = \"nobody\"\n\
         [[route]]\nmatch = \"/b\"\nto = \"nobody\"\nerrors = {{ {}, 4xx = \"off\" }}\n\
         [[route]]\nmatch = {{ path = \"/get\", method = \"GET\" }}\nrespond = 503\n",
        page("4xx", ""),
        page("502", ""),
        page("connect_failed", ""),
    ));
    for (path, status, key, reason) in [
        ("/a", 502, "502", "connect_failed"),
        ("/b", 502, "connect_failed", "connect_failed"),
        ("/none", 404, "4xx", "no_route"),
    ] {
        let answer = weir.ask(get(path));
        let id = answer.field("X-Request-Id").unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.text(), format!("<p>{key} {status} {reason} {id}"));
        assert_eq!(answer.field("Content-Type"), Some("text/html"));
        assert_eq!(answer.field("Cache-Control"), Some("no-store"));
        assert!(answer.field("Proxy-Status").unwrap().contains(reason));
        let entry = weir.entry(path);
        assert_eq!(
            (entry.text("reason"), entry.text("id")),
            (reason.to_owned(), id.to_owned())
        );
    }
    // Errors of requests that Weir cannot even read, and the fields that say what is allowed.
    let broken = weir.ask("GET /\\ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        broken.text().starts_with("<p>4xx 400 bad_path"),
        "{}",
        broken.text()
    );
    let refused = weir.ask(post("/get", ""));
    assert!(
        refused.text().starts_with("<p>4xx 405"),
        "{}",
        refused.text()
    );
    assert!(refused.field("Allow").unwrap().contains("GET"));
    // A fixed answer is no error.
    assert_eq!(weir.ask(get("/get")).text(), "");
}

#[test]
fn head_gets_the_head_of_the_page() {
    let weir = Weir::start(
        "errors = { 404 = { body = \"twelve bytes\" } }\n[[route]]\nmatch = \"/a\"\nrespond = 200\n",
    );
    let mut client = weir.connect();
    client.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.message_head();
    assert_eq!(
        (answer.status(), answer.field("Content-Length")),
        (404, Some("12"))
    );
    client.send(get("/none"));
    assert_eq!(client.response().text(), "twelve bytes");
}

#[test]
fn an_endpoints_answer_is_replaced_if_the_file_says_so() {
    let endpoint = failing();
    let keys = format!(
        "errors = {{ {}, {}, 403 = {{ redirect = \"/login?{{status}}&id={{request_id}}\", upstream = true }} }}",
        page("5xx", ", upstream = true"),
        page("404", ""),
    );
    let weir = Weir::with(&keys, &[&endpoint]);
    let mut client = weir.connect();
    for _ in 0..3 {
        client.send(get("/500"));
        let answer = client.response();
        let id = answer.field("X-Request-Id").unwrap();
        assert_eq!(
            (answer.status(), answer.text()),
            (500, format!("<p>5xx 500  {id}"))
        );
        assert_eq!(answer.field("Content-Type"), Some("text/html"));
        assert_eq!(answer.field("Cache-Control"), Some("no-store"));
        // What the client may do next, and which pages may read it.
        assert_eq!(answer.field("Retry-After"), Some("7"));
        assert_eq!(answer.field("WWW-Authenticate"), Some("Basic"));
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("*"));
        for gone in ["Set-Cookie", "ETag"] {
            assert_eq!(answer.field(gone), None);
        }
        client.send(get("/403"));
        let answer = client.response();
        let id = answer.field("X-Request-Id").unwrap();
        assert_eq!(answer.status(), 302);
        assert_eq!(
            answer.field("Location").unwrap(),
            format!("/login?403&id={id}")
        );
        for passed in ["/404", "/200"] {
            client.send(get(passed));
            assert_eq!(client.response().text(), "secret");
        }
    }
    assert_eq!(
        endpoint.connections(),
        1,
        "the endpoint's connection stays usable"
    );
    let entry = weir.entry("/500");
    assert_eq!(
        (entry.number("status"), entry.text("reason").as_str()),
        (500.0, "")
    );
    assert!(!entry.text("endpoint").is_empty());
}

#[test]
fn a_long_or_late_body_closes_the_endpoints_connection() {
    let endpoint = Endpoint::script(|conn| {
        while let Some(request) = conn.next_request() {
            if request.target() == "/endless" {
                conn.send("HTTP/1.1 500 Own\r\nTransfer-Encoding: chunked\r\n\r\n");
                let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
                while conn.try_send(&piece).is_ok() {}
                return;
            }
            conn.send("HTTP/1.1 500 Own\r\nContent-Length: 6\r\n\r\n");
            conn.send("secret");
        }
    });
    let weir = Weir::with(
        &format!("errors = {{ {} }}", page("500", ", upstream = true")),
        &[&endpoint],
    );
    let mut client = weir.connect();
    for path in ["/short", "/endless", "/short", "/short"] {
        client.send(get(path));
        assert!(client.response().text().starts_with("<p>500 500"));
    }
    assert_eq!(endpoint.connections(), 2);
}

#[test]
fn a_client_that_still_uploads_gets_the_page() {
    let endpoint = Endpoint::script(|conn| {
        let head = conn.head();
        assert!(head.starts_with("POST"), "{head}");
        conn.send("HTTP/1.1 500 Own\r\nContent-Length: 6\r\n\r\nsecret");
        while conn.wait_for_bytes() {
            conn.rest();
        }
    });
    let weir = Weir::with(
        &format!("errors = {{ {} }}", page("500", ", upstream = true")),
        &[&endpoint],
    );
    let mut client = weir.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf.");
    let answer = client.response();
    assert!(answer.text().starts_with("<p>500 500"), "{}", answer.text());
}

#[test]
fn every_pairing_of_protocols() {
    use peers::*;
    for (down, up) in PAIRS {
        run(async {
            let handler = |request: http::Request<hyper::body::Incoming>| async {
                let _ = http_body_util::BodyExt::collect(request.into_body()).await;
                let mut answer = answer("secret");
                *answer.status_mut() = http::StatusCode::BAD_GATEWAY;
                answer
            };
            let server = Server::start(up, handler).await;
            let keys = format!(
                "errors = {{ {}, {} }}",
                page("502", ", upstream = true"),
                page("404", "")
            );
            let weir = Weir::start(&format!(
                "{keys}\n[upstream.up]\nservers = [{:?}]\n[[route]]\nmatch = \"/a/*\"\nto = \"up\"\n",
                server.name
            ));
            let mut client = Client::connect(down, weir.address).await;
            for _ in 0..2 {
                for method in ["GET", "POST", "HEAD"] {
                    let body = if method == "POST" {
                        Body::of("upload")
                    } else {
                        Body::empty()
                    };
                    let got = client
                        .ask(request(method, "/a/b").body(body).unwrap())
                        .await;
                    let text = if method == "HEAD" { "" } else { "<p>502 502  " };
                    assert!(
                        got.status == 502 && got.text().starts_with(text),
                        "{down:?} {up:?} {method} {got:?}"
                    );
                }
                let got = client
                    .ask(request("GET", "/none").body(Body::empty()).unwrap())
                    .await;
                assert!(
                    got.text().starts_with("<p>404 404 no_route"),
                    "{down:?} {up:?} {got:?}"
                );
            }
            assert_eq!(server.connections(), 1, "{down:?} {up:?}");
        });
    }
}

#[test]
fn grpc_calls_get_no_page() {
    use peers::*;
    run(async {
        let weir = Weir::start(&format!(
            "errors = {{ {} }}\n[[route]]\nmatch = \"/a\"\nrespond = 200\n",
            page("4xx", "")
        ));
        let mut client = Client::connect(Protocol::Http2, weir.address).await;
        let call = request("POST", "/none").header("content-type", "application/grpc");
        let got = client.ask(call.body(Body::empty()).unwrap()).await;
        assert_eq!((got.status, got.field("grpc-status")), (200, Some("12")));
        assert_eq!(got.text(), "");
    });
}

#[test]
fn pages_of_files_are_read_at_start_and_reload() {
    let dir = Weir::dir();
    let file = dir.join("sorry.html");
    std::fs::write(&file, "<style>p{color:red}</style><p>first {reason}").unwrap();
    let config =
        "errors = { 404 = { file = \"sorry.html\" } }\n[[route]]\nmatch = \"/a\"\nrespond = 200\n";
    let weir = Weir::start_in(&dir, config);
    let answer = weir.ask(get("/none"));
    assert_eq!(
        answer.text(),
        "<style>p{color:red}</style><p>first no_route"
    );
    assert_eq!(
        answer.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    std::fs::write(&file, "second").unwrap();
    assert!(weir.ask(get("/none")).text().contains("first"));
    weir.reload(config);
    weir.wait_for("plan 2");
    assert_eq!(weir.ask(get("/none")).text(), "second");
}

#[test]
fn mistakes_are_errors_of_the_file() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    std::fs::write(dir.join("latin.html"), b"\xfcber").unwrap();
    std::fs::write(dir.join("huge.html"), vec![b'a'; 256 * 1024 + 1]).unwrap();
    let check = |errors: &str, elsewhere: bool| {
        std::fs::write(&file, format!("errors = {{ {errors} }}\n[listen.\"127.0.0.1:8080\"]\n[[route]]\nmatch = \"/*\"\nrespond = 200\n[[route]]\nmatch = \"/b\"\nrespond = 200\n")).unwrap();
        let mut arguments = vec!["check", file.to_str().unwrap()];
        if elsewhere {
            arguments.push("--elsewhere");
        }
        run_weir(&arguments)
    };
    for (errors, message) in [
        (
            "no_rout = { body = \"\" }",
            "there is no reason `no_rout`; did you mean `no_route`?",
        ),
        (
            "404 = { file = \"missing.html\" }",
            "missing.html: No such file",
        ),
        ("404 = { file = \"latin.html\" }", "it is not UTF-8 text"),
        ("404 = { file = \"huge.html\" }", "it is larger than 256KiB"),
    ] {
        let (code, output) = check(errors, false);
        assert_eq!(code, Some(3), "{output}");
        assert_eq!(output.matches(message).count(), 1, "{message}: {output}");
        assert!(output.contains("weir.toml:1:"), "{output}");
    }
    let (code, output) = check("404 = { file = \"missing.html\" }", true);
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = run_weir(&[
        "explain",
        file.to_str().unwrap(),
        "GET",
        "http://a.test:8080/",
    ]);
    assert_eq!(code, Some(0), "{output}");
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn explain_names_the_page() {
    let dir = Weir::dir();
    let file = dir.join("weir.toml");
    std::fs::write(&file, "errors = { 404 = { body = \"gone\" } }\n[listen.\"127.0.0.1:8080\"]\n[upstream]\na = [\"127.0.0.1:9\"]\n[[route]]\nmatch = \"/a\"\nto = \"a\"\nerrors = { 5xx = { redirect = \"/sorry\", upstream = true } }\n").unwrap();
    let explain = |path: &str| {
        run_weir(&[
            "explain",
            file.to_str().unwrap(),
            "GET",
            &format!("http://a.test:8080{path}"),
        ])
        .1
    };
    let (none, some) = (explain("/none"), explain("/a"));
    assert!(
        none.contains("page       errors, 404: 4 bytes, text/plain; charset=utf-8"),
        "{none}"
    );
    assert!(
        some.contains("errors     5xx: 302, location /sorry, for endpoints' answers too"),
        "{some}"
    );
    let _ = std::fs::remove_dir_all(dir);
}
