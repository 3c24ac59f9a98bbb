//! The same exchange has the same effect in every pairing of protocols.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::e2e::Weir;
use crate::peers::*;

/// Runs a test for each pairing, with a client, an endpoint that answers by `handler`, and Weir.
fn for_all_pairs<F, R>(handler: F, keys: &str, test: impl AsyncFn(Protocol, Client, &Weir))
where
    F: Fn(Request<Incoming>) -> R + Clone + 'static,
    R: Future<Output = Response<Body>> + 'static,
{
    for (down, up) in PAIRS {
        println!("{down:?} to {up:?}");
        run(async {
            let server = Server::start(up, handler.clone()).await;
            let weir = Weir::start(&routed(keys, std::slice::from_ref(&server.name), ""));
            let client = Client::connect(down, weir.address).await;
            test(down, client, &weir).await;
        });
    }
}

/// Answers with the request's method and target in the first line, then all fields but the body's framing.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri.path_and_query().unwrap());
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let body = body.collect().await.unwrap().to_bytes();
    text += &format!("{} bytes, {:x}\n", body.len(), sum(&body));
    answer(text)
}

#[test]
fn a_get_has_no_body_and_its_answer_is_whole() {
    for_all_pairs(mirror, "", async |_, mut client, weir| {
        let response = client
            .ask(request("GET", "/a/b?c=d&e").body(Body::empty()).unwrap())
            .await;
        assert_eq!(response.status, 200);
        assert!(
            response.text().starts_with("GET /a/b?c=d&e\n"),
            "{}",
            response.text()
        );
        assert!(response.text().ends_with("\n0 bytes, cbf29ce484222325\n"));
        assert!(
            !response.text().contains("content-length"),
            "{}",
            response.text()
        );
        assert!(!response.text().contains("transfer-encoding"));
        assert_eq!(
            response.field("content-length"),
            Some(&*response.body.len().to_string())
        );
        let entry = weir.entry("/a/b?c=d&e");
        assert_eq!(entry.number("bytes_out"), response.body.len() as f64);
    });
}

#[test]
fn a_head_has_the_length_and_no_body() {
    let handler = |request: Request<Incoming>| async move {
        assert_eq!(request.method(), "HEAD");
        // hyper would send the body in HTTP/2.
        let response = Response::builder().header("content-length", "1234");
        response.body(Body::empty()).unwrap()
    };
    for_all_pairs(handler, "", async |_, mut client, _| {
        for _ in 0..2 {
            let response = client
                .ask(request("HEAD", "/").body(Body::empty()).unwrap())
                .await;
            assert_eq!(
                (response.status, response.field("content-length")),
                (200, Some("1234"))
            );
            assert!(response.body.is_empty());
        }
    });
}

#[test]
fn answers_that_have_no_body_have_none() {
    let handler = |request: Request<Incoming>| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        let response = Response::builder().status(status).header("etag", "\"tag\"");
        response.body(Body::empty()).unwrap()
    };
    for_all_pairs(handler, "", async |_, mut client, _| {
        for status in [204, 304, 205, 200, 404, 204] {
            let asked = request("GET", &format!("/{status}"))
                .body(Body::empty())
                .unwrap();
            let response = client.ask(asked).await;
            assert_eq!(
                (response.status, response.field("etag")),
                (status, Some("\"tag\""))
            );
            assert!(response.body.is_empty());
            if status == 204 {
                assert_eq!(response.field("content-length"), None);
            }
        }
    });
}

#[test]
fn a_body_of_known_length_arrives_with_its_length() {
    for_all_pairs(mirror, "", async |_, mut client, weir| {
        for len in [1, 100, 16_384, 16_385, 300_000] {
            let body = pattern(len, 3);
            let path = format!("/{len}");
            let asked = request("POST", &path).body(Body::of(body.clone())).unwrap();
            let response = client.ask(asked).await;
            let text = response.text();
            assert!(
                text.contains(&format!("\ncontent-length: {len}\n")),
                "{text}"
            );
            assert!(
                text.ends_with(&format!("\n{len} bytes, {:x}\n", sum(&body))),
                "{text}"
            );
            assert_eq!(weir.entry(&path).number("bytes_in"), len as f64);
        }
    });
}

#[test]
fn a_body_of_unknown_length_arrives_without_one() {
    for_all_pairs(mirror, "", async |_, mut client, _| {
        for (len, piece) in [(1, 1), (40_000, 999), (300_000, 70_000)] {
            let body = pattern(len, 5);
            let asked = request("POST", "/")
                .body(Body::streamed(body.clone(), piece))
                .unwrap();
            let response = client.ask(asked).await;
            let text = response.text();
            assert!(!text.contains("content-length"), "{text}");
            assert!(
                text.ends_with(&format!("\n{len} bytes, {:x}\n", sum(&body))),
                "{text}"
            );
        }
        // No body, and no field that announces one.
        let asked = request("PUT", "/")
            .body(Body::streamed(Bytes::new(), 1))
            .unwrap();
        let response = client.ask(asked).await;
        assert!(response.text().ends_with("\n0 bytes, cbf29ce484222325\n"));
    });
}

#[test]
fn trailers_pass_in_both_directions() {
    let handler = |request: Request<Incoming>| async move {
        let wants = request
            .headers()
            .get("te")
            .map(|te| te.to_str().unwrap().to_owned());
        assert_eq!(wants.as_deref(), Some("trailers"));
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let mut response = Response::new(Body::trailed(collected.to_bytes(), 1_000, trailers));
        let announced = HeaderValue::from_static("x-sum, x-more");
        response.headers_mut().insert("trailer", announced);
        response
    };
    for_all_pairs(handler, "", async |down, mut client, _| {
        for (len, value) in [(0, "first"), (1, "second"), (5_000, "third")] {
            let mut trailers = HeaderMap::new();
            trailers.insert(HeaderName::from_static("x-sum"), value.parse().unwrap());
            trailers.insert(
                HeaderName::from_static("x-more"),
                "and more".parse().unwrap(),
            );
            let body = pattern(len, 1);
            let mut asked = request("PUT", "/")
                .header("te", "trailers")
                .header("trailer", "x-sum, x-more");
            if down == Protocol::Http1 {
                asked = asked.header("connection", "te");
            }
            let body_sent = Body::trailed(body.clone(), 300, trailers.clone());
            let response = client.ask(asked.body(body_sent).unwrap()).await;
            assert_eq!(response.trailers, trailers);
            assert_eq!(response.body, body);
        }
    });
}

#[test]
fn an_answer_without_a_date_gets_one_in_every_pairing() {
    // hyper adds a Date unless told not to, so the HTTP/1.1 endpoint is written by hand.
    let handler = |_: Request<Incoming>| async move {
        let response = Response::builder().header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        response.body(Body::empty()).unwrap()
    };
    for_all_pairs(handler, "", async |_, mut client, _| {
        let asked = request("GET", "/").body(Body::empty()).unwrap();
        let response = client.ask(asked).await;
        let dates: Vec<_> = response.headers.get_all("date").iter().collect();
        assert_eq!(dates, ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    });
    run(async {
        let endpoint = crate::e2e::Endpoint::answering(|_| crate::e2e::ok("hello"));
        let weir = Weir::start(&routed("", std::slice::from_ref(&endpoint.name), ""));
        let mut client = Client::connect(Protocol::Http2, weir.address).await;
        let asked = request("GET", "/").body(Body::empty()).unwrap();
        let response = client.ask(asked).await;
        assert_eq!(response.text(), "hello");
        let date = response.field("date").expect("a date");
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    });
}

/// Trailers belong to their own request, even if the endpoint did not wait for them.
#[test]
fn unread_trailers_do_not_reach_the_next_request() {
    for up in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let go = std::rc::Rc::new(tokio::sync::Notify::new());
            let wait = go.clone();
            let handler = move |request: Request<Incoming>| {
                let wait = wait.clone();
                async move {
                    if request.uri().path() == "/refused" {
                        let (pieces, body) = Body::piped(1);
                        tokio::task::spawn_local(async move {
                            wait.notified().await;
                            drop(pieces);
                        });
                        return Response::builder().status(403).body(body).unwrap();
                    }
                    let collected = request.into_body().collect().await.unwrap();
                    let trailers = collected.trailers().cloned().unwrap_or_default();
                    answer(format!("{trailers:?}"))
                }
            };
            let server = Server::start(up, handler).await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&server.name), ""));
            let mut client = frames::connect(weir.address).await;
            let post = |path: &str| request("POST", path).body(()).unwrap();
            let (refused, mut stream) = client.send(post("/refused"), false);
            let refused = within(refused).await.unwrap();
            assert_eq!(refused.status(), 403);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-secret", "of another request".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
            // Bytes sent before the answer were read before it.
            assert_eq!(client.ask(post("/between")).await, (200, "{}".into()));
            go.notify_one();
            within(frames::read(refused.into_body())).await.unwrap();
            for _ in 0..3 {
                let (response, mut stream) = client.send(post("/"), false);
                stream.send_data("a body".into(), true).unwrap();
                let body = within(response).await.unwrap().into_body();
                assert_eq!(within(frames::read(body)).await.unwrap(), "{}");
            }
        });
    }
}

#[test]
fn large_bodies_arrive_unchanged_both_ways_at_once() {
    const LEN: usize = 20_000_000;
    let echo = |request: Request<Incoming>| async move {
        let length = request.headers().get("content-length").cloned();
        let (pieces, body) = Body::piped(4);
        let mut incoming = request.into_body();
        tokio::task::spawn_local(async move {
            while let Some(Ok(frame)) = incoming.frame().await {
                if pieces.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(body);
        if let Some(length) = length {
            response.headers_mut().insert("content-length", length);
        }
        response
    };
    for_all_pairs(echo, "", async |_, mut client, weir| {
        let whole = pattern(LEN, 9);
        for body in [
            Body::of(whole.clone()),
            Body::streamed(whole.clone(), 100_000),
        ] {
            let response = client.ask(request("PUT", "/").body(body).unwrap()).await;
            assert_eq!(response.body.len(), LEN);
            assert_eq!(sum(&response.body), sum(&whole));
        }
        let entry = weir.entry("/");
        assert_eq!(
            (entry.number("bytes_in"), entry.number("bytes_out")),
            (LEN as f64, LEN as f64)
        );
    });
}

#[test]
fn many_requests_at_once_are_answered_as_their_answers_come() {
    const COUNT: usize = 90;
    for up in [Protocol::Http1, Protocol::Http2] {
        run(async {
            // The endpoint answers each request only after the one behind it.
            let (turns, _) = tokio::sync::watch::channel(COUNT);
            let handler = move |request: Request<Incoming>| {
                let turns = turns.clone();
                async move {
                    let number: usize = request.uri().path()[1..].parse().unwrap();
                    let mut turn = turns.subscribe();
                    turn.wait_for(|turn| *turn == number + 1).await.unwrap();
                    turns.send_replace(number);
                    answer(format!("answer {number}"))
                }
            };
            let server = Server::start(up, handler).await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&server.name), ""));
            let mut client = Client::connect(Protocol::Http2, weir.address).await;
            let mut sent = Vec::new();
            for number in 0..COUNT {
                let asked = request("GET", &format!("/{number}")).body(Body::empty());
                sent.push(tokio::task::spawn_local(client.ask(asked.unwrap())));
            }
            for (number, task) in sent.into_iter().enumerate() {
                let response = within(task).await.unwrap();
                assert_eq!(response.text(), format!("answer {number}"));
            }
            let connections = if up == Protocol::Http2 { 1 } else { COUNT };
            assert_eq!(server.connections(), connections);
        });
    }
}

#[test]
fn endpoints_are_told_who_asked_and_through_whom() {
    let keys = "trusted_proxies = []";
    for_all_pairs(mirror, keys, async |down, mut client, _| {
        let asked = request("GET", "/")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-real-ip", "6.6.6.6")
            .header("cookie", "a=1; b=2");
        let response = client.ask(asked.body(Body::empty()).unwrap()).await;
        let text = response.text();
        let version = if down == Protocol::Http1 {
            "1.1"
        } else {
            "2.0"
        };
        for line in [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: weir.test",
            "forwarded: for=127.0.0.1;host=\"weir.test\";proto=http",
            &format!("via: {version} weir"),
            "cookie: a=1; b=2",
        ] {
            assert!(
                text.contains(&format!("\n{line}")),
                "{line:?} is missing in {text}"
            );
        }
        let id = response.field("x-request-id").unwrap();
        assert!(text.contains(&format!("\nx-request-id: {id}\n")), "{text}");
        assert!(!text.contains("6.6.6.6"), "{text}");
    });
}

#[test]
fn paths_are_rewritten_and_queries_stay() {
    for (down, up) in PAIRS {
        run(async {
            let server = Server::start(up, mirror).await;
            let weir = Weir::start(&format!(
                "[upstream.up]\nservers = [\"{}\"]\n\
                 [[route]]\nmatch = \"/api/*\"\nto = \"up\"\nstrip = \"/api\"\n\
                 [[route]]\nmatch = \"/users/{{id}}\"\nto = \"up\"\nreplace = \"/v2/u/{{id}}\"\n",
                server.name
            ));
            let mut client = Client::connect(down, weir.address).await;
            for (path, seen) in [
                ("/api/x/y?q=1", "GET /x/y?q=1\n"),
                ("/api/", "GET /\n"),
                ("/users/7?a", "GET /v2/u/7?a\n"),
            ] {
                let response = client
                    .ask(request("GET", path).body(Body::empty()).unwrap())
                    .await;
                assert!(response.text().starts_with(seen), "{}", response.text());
            }
        });
    }
}

#[test]
fn weir_answers_by_itself_alike_in_both_protocols() {
    let config = "limits = { body = \"1KiB\", target = \"1KiB\", head = \"4KiB\" }\n\
        [upstream.up]\nservers = [\"127.0.0.1:9\"]\n\
        [[route]]\nmatch = \"/old/*\"\nredirect = { location = \"https://new.test{path}{query}\", status = 308 }\n\
        [[route]]\nmatch = \"/fixed\"\nrespond = { status = 418, body = \"short and stout\", headers = { x-pot = \"tea\" } }\n\
        [[route]]\nmatch = \"/empty\"\nrespond = 200\n\
        [[route]]\nmatch = \"/nothing\"\nrespond = 204\n\
        [[route]]\nmatch = \"/up\"\nto = \"up\"\n";
    for down in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let weir = Weir::start(config);
            let mut client = Client::connect(down, weir.address).await;
            let get = |path: &str| request("GET", path).body(Body::empty()).unwrap();
            let response = client.ask(get("/old/x?y")).await;
            let location = response.field("location");
            assert_eq!(
                (response.status, location),
                (308, Some("https://new.test/old/x?y"))
            );
            let response = client.ask(get("/fixed")).await;
            assert_eq!((response.status, response.text()), (418, "short and stout"));
            let id = weir.entry("/fixed").text("id");
            assert_eq!(response.field("x-request-id"), Some(id.as_str()));
            assert_eq!(response.field("x-pot"), Some("tea"));
            // The answer to HEAD has the length of the answer to GET.
            let head = |path: &str| request("HEAD", path).body(Body::empty()).unwrap();
            let response = client.ask(head("/fixed")).await;
            assert_eq!((response.status, response.text()), (418, ""));
            assert_eq!(response.field("content-length"), Some("15"));
            for path in ["/old/x", "/none", "/empty", "/nothing"] {
                let (long, short) = (client.ask(get(path)).await, client.ask(head(path)).await);
                assert_eq!(short.status, long.status, "{path}");
                let lengths = [&short, &long].map(|whole| whole.field("content-length"));
                assert_eq!(lengths[0], lengths[1], "{path} over {down:?}");
                assert_eq!(short.text(), "");
            }
            let trace = request("TRACE", "/traced").body(Body::empty()).unwrap();
            let large = request("POST", "/up")
                .body(Body::of(pattern(1_025, 0)))
                .unwrap();
            let long = get(&format!("/{}", "x".repeat(1_500)));
            let fat = request("GET", "/up").header("x-fat", "y".repeat(5_000));
            for (asked, status, reason) in [
                (get("/none"), 404, "no_route"),
                (trace, 405, "method_not_allowed"),
                (large, 413, "body_too_large"),
                (long, 414, "target_too_long"),
                (fat.body(Body::empty()).unwrap(), 431, "head_too_large"),
                (get("/up"), 502, "connect_failed"),
            ] {
                // HTTP/1.1 closes after some of these.
                if down == Protocol::Http1 {
                    client = Client::connect(down, weir.address).await;
                }
                let response = client.ask(asked).await;
                assert_eq!(response.status, status, "{}", response.text());
                assert_eq!(
                    response.field("content-type"),
                    Some("application/problem+json")
                );
                let text = response.text();
                assert!(text.contains(&format!("\"reason\":\"{reason}\"")), "{text}");
                assert!(response.field("proxy-status").unwrap().contains(reason));
                let entry = weir.entry_with("reason", reason);
                assert_eq!(entry.number("status"), f64::from(status));
            }
        });
    }
}

#[test]
fn tls_with_alpn_carries_every_pairing() {
    for (down, up) in PAIRS {
        run(async {
            let (dir, tls) = (Weir::dir(), Tls::new());
            let (listen, upstream) = tls.files(&dir);
            let server = Server::start_tls(up, &tls, mirror).await;
            let keys = format!("[listen.\"127.0.0.1:0\"]\n{listen}");
            let config = routed(&keys, std::slice::from_ref(&server.name), &upstream);
            let weir = Weir::start_in(&dir, &config);
            let mut client = Client::connect_tls(down, weir.address, &tls).await;
            for n in 0..5 {
                let body = pattern(n * 50_000, n);
                let asked = request("POST", &format!("/{n}"))
                    .body(Body::of(body.clone()))
                    .unwrap();
                let response = client.ask(asked).await;
                let text = response.text();
                assert!(text.contains("\nx-forwarded-proto: https\n"), "{text}");
                let end = format!("\n{} bytes, {:x}\n", body.len(), sum(&body));
                assert!(text.ends_with(&end), "{text}");
            }
            assert_eq!(server.connections(), 1);
        });
    }
}

#[test]
fn cookie_crumbs_are_one_cookie_for_endpoints() {
    for up in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let server = Server::start(up, mirror).await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&server.name), ""));
            let mut client = frames::connect(weir.address).await;
            let asked = request("GET", "/")
                .header("cookie", "a=1")
                .header("x-between", "them")
                .header("cookie", "b=2")
                .header("cookie", "c=3");
            let (status, body) = client.ask(asked.body(()).unwrap()).await;
            let text = String::from_utf8_lossy(&body);
            assert_eq!(status, 200);
            assert!(text.contains("\ncookie: a=1; b=2; c=3\n"), "{text}");
        });
    }
}

/// Paths are forwarded as received or as matched, and refused alike, in every pairing.
#[test]
fn paths_are_the_same_in_both_protocols() {
    let handler = |request: Request<Incoming>| async move {
        let target = request.uri().path_and_query().unwrap().to_string();
        answer(target)
    };
    for (down, up) in PAIRS {
        println!("{down:?} to {up:?}");
        run(async {
            let server = Server::start(up, handler).await;
            let guard = "[[route]]\nmatch = \"/admin/*\"\nrespond = 403\n";
            let keys = routed("", std::slice::from_ref(&server.name), "");
            let weir = Weir::start(&format!("{keys}\n{guard}"));
            let mut client = Client::connect(down, weir.address).await;
            for (asked, expected) in [
                (
                    "/a//b/@scope%2fname?c=/../d",
                    Ok("/a//b/@scope%2fname?c=/../d"),
                ),
                ("/a/%2e%2E/b;c?d", Ok("/b;c?d")),
                ("/admin/../users", Ok("/users")),
                ("/admin", Err(403)),
                ("/x/../admin/y", Err(403)),
                ("/admin//../users", Err(400)),
                ("/x/..%2fadmin/y", Err(400)),
                ("/x/..;/admin/y", Err(400)),
            ] {
                let get = request("GET", asked).body(Body::empty()).unwrap();
                let response = client.ask(get).await;
                match expected {
                    Ok(seen) => assert_eq!(response.text(), seen, "{asked}"),
                    Err(status) => assert_eq!(response.status, status, "{asked}"),
                }
            }
        });
    }
}

#[test]
fn sessions_stick_in_every_pairing() {
    for (down, up) in PAIRS {
        run(async {
            let server = async |name: &'static str| {
                let handler = move |request: Request<Incoming>| async move {
                    let sent = request.headers().get("cookie");
                    let sent = sent.map_or("", |cookie| cookie.to_str().unwrap());
                    let mut response = answer(format!("{name} got {sent}"));
                    if request.uri().path() == "/login" {
                        let set = HeaderValue::from_static("SID=own; Path=/");
                        response.headers_mut().append("set-cookie", set);
                    }
                    response
                };
                Server::start(up, handler).await
            };
            let servers = [server("a").await, server("b").await];
            let names = servers.each_ref().map(|server| server.name.clone());
            for keys in ["sticky = \"cookie\"", "sticky = { learn = \"SID\" }"] {
                let weir = Weir::start(&routed("", &names, keys));
                let mut client = Client::connect(down, weir.address).await;
                let first = request("GET", "/login").body(Body::empty()).unwrap();
                let first = client.ask(first).await;
                let home = first.text().chars().next().unwrap();
                let set = first.headers.get_all("set-cookie").iter();
                let set = set.map(|set| set.to_str().unwrap());
                let cookies: Vec<_> = set.map(|set| set.split(';').next().unwrap()).collect();
                for _ in 0..8 {
                    // HTTP/2 clients may send a field for each cookie.
                    let mut next = request("GET", "/").header("cookie", "a=b");
                    for cookie in &cookies {
                        next = next.header("cookie", *cookie);
                    }
                    let next = client.ask(next.body(Body::empty()).unwrap()).await;
                    let text = next.text();
                    assert!(
                        text.starts_with(&format!("{home} got a=b")),
                        "{down:?} to {up:?}: {text}"
                    );
                    assert!(!text.contains('~'), "{text}");
                }
            }
        });
    }
}

#[test]
fn a_copy_is_the_same_in_every_pairing() {
    for (down, up) in PAIRS {
        run(async {
            let server = Server::start(up, mirror).await;
            let copies = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
            let sink = copies.clone();
            let shadow = Server::start(up, move |request| {
                let sink = sink.clone();
                async move {
                    let text = mirror(request).await.into_body().collect().await;
                    let text = String::from_utf8(text.unwrap().to_bytes().to_vec()).unwrap();
                    sink.borrow_mut().push(text);
                    answer("dropped")
                }
            })
            .await;
            let keys = format!(
                "mirror = \"shadow\"\nupstream.shadow = [\"{}\"]",
                shadow.name
            );
            let weir = Weir::start(&routed(&keys, std::slice::from_ref(&server.name), ""));
            let mut client = Client::connect(down, weir.address).await;
            for body in ["", "a body"] {
                let request = request("POST", "/a?b").header("x-one", "1");
                let original = client.ask(request.body(Body::of(body)).unwrap()).await;
                while copies.borrow().is_empty() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                let copy = copies.borrow_mut().remove(0);
                // Their fields may come in another order, and a copy announces its length.
                let lines = |text: &str| -> std::collections::BTreeSet<String> {
                    let lines = text.lines().map(str::to_owned);
                    lines
                        .filter(|line| {
                            let names = ["content-length", "transfer-encoding", "x-weir-mirror"];
                            !names.iter().any(|name| line.starts_with(name))
                        })
                        .collect()
                };
                assert_eq!(lines(original.text()), lines(&copy), "{down:?} to {up:?}");
                assert!(copy.contains("\nx-weir-mirror: 1\n"), "{copy}");
            }
        });
    }
}
