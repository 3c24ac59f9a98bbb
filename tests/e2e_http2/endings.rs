//! Exchanges that one side cancels or that break.

use bytes::Bytes;
use h2::Reason;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_local;

use crate::e2e::{DEADLINE, Endpoint, Weir};
use crate::peers::frames::{Listener, connect, respond};
use crate::peers::*;

fn get(path: &str) -> http::Request<()> {
    request("GET", path).body(()).unwrap()
}

fn to(name: &str) -> Weir {
    // No exchange may end by a time limit.
    let keys = "timeouts = { first_byte = \"10m\", body_stall = \"10m\" }";
    Weir::start(&routed(keys, &[name.to_owned()], ""))
}

#[test]
fn a_request_that_its_client_resets_is_reset_at_the_endpoint() {
    run(async {
        let listener = Listener::bind().await;
        let weir = to(&listener.name);
        let mut client = connect(weir.address).await;
        let (_waiting, _) = client.send(get("/other"), true);
        let mut endpoint = listener.accept().await;
        let (_, mut other) = endpoint.next().await;
        // Before an answer.
        let (response, mut stream) = client.send(get("/a"), true);
        let (_, mut send) = endpoint.next().await;
        stream.send_reset(Reason::CANCEL);
        assert_eq!(
            frames::reset_of_request(&mut send).await.unwrap(),
            Reason::CANCEL
        );
        drop(response);
        let entry = weir.entry("/a");
        assert_eq!(entry.text("reason"), "client_closed");
        assert_eq!(entry.number("status"), 499.0);
        // Within an answer.
        let (response, mut stream) = client.send(get("/b"), true);
        let (_, mut send) = endpoint.next().await;
        let mut answer = send.send_response(Response::new(()), false).unwrap();
        answer.send_data("part".into(), false).unwrap();
        let _response = within(response).await.unwrap();
        stream.send_reset(Reason::CANCEL);
        assert_eq!(frames::reset_of(&mut answer).await.unwrap(), Reason::CANCEL);
        assert_eq!(weir.entry("/b").text("reason"), "client_closed");
        // Within an upload.
        let (response, mut stream) = client.send(get("/c"), false);
        stream.send_data("part".into(), false).unwrap();
        let (_, mut send) = endpoint.next().await;
        stream.send_reset(Reason::CANCEL);
        assert_eq!(
            frames::reset_of_request(&mut send).await.unwrap(),
            Reason::CANCEL
        );
        drop(response);
        assert_eq!(weir.entry("/c").text("reason"), "client_closed");
        // The connections keep serving others.
        respond(&mut other, 200, "still there");
        let body = within(_waiting).await.unwrap().into_body();
        assert_eq!(frames::read(body).await.unwrap(), "still there");
    });
}

#[test]
fn a_request_that_its_client_resets_ends_the_endpoints_connection_of_http1() {
    run(async {
        let (ended, mut has_ended) = unbounded_channel();
        let (begun, mut has_begun) = unbounded_channel();
        let endpoint = Endpoint::script(move |conn| {
            let head = conn.message_head();
            let path = head.target().to_owned();
            if path == "/within" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart");
            }
            begun.send(()).unwrap();
            // The stream's end, whatever happened to the upload.
            conn.rest();
            ended.send(path).unwrap();
        });
        let weir = to(&endpoint.name);
        let mut client = connect(weir.address).await;
        for (path, is_end) in [("/before", true), ("/within", true), ("/upload", false)] {
            let (response, mut stream) = client.send(get(path), is_end);
            within(has_begun.recv()).await.unwrap();
            let mut answered = None;
            if path == "/within" {
                answered = Some(within(response).await.unwrap());
            }
            stream.send_reset(Reason::CANCEL);
            assert_eq!(within(has_ended.recv()).await.unwrap(), path);
            assert_eq!(weir.entry(path).text("reason"), "client_closed");
            drop(answered);
        }
    });
}

#[test]
fn a_lost_client_takes_all_its_requests_with_it() {
    const COUNT: usize = 20;
    run(async {
        let listener = Listener::bind().await;
        let weir = to(&listener.name);
        let mut client = connect(weir.address).await;
        let mut asked: Vec<_> = (0..COUNT)
            .map(|n| client.send(get(&format!("/{n}")), n % 2 == 0))
            .collect();
        let mut endpoint = listener.accept().await;
        let mut sends = Vec::new();
        for n in 0..COUNT {
            let (_, mut send) = endpoint.next().await;
            if n < COUNT / 2 {
                let mut answer = send.send_response(Response::new(()), false).unwrap();
                answer.send_data("part".into(), false).unwrap();
                sends.push((send, Some(answer)));
            } else {
                sends.push((send, None));
            }
        }
        for (response, _) in asked.iter_mut().take(COUNT / 2) {
            within(response).await.unwrap();
        }
        client.task.abort();
        drop((client.sender, asked));
        for (mut send, answer) in sends {
            let reset = match answer {
                Some(mut answer) => frames::reset_of(&mut answer).await,
                None => frames::reset_of_request(&mut send).await,
            };
            assert_eq!(reset.unwrap(), Reason::CANCEL);
        }
        for n in 0..COUNT {
            assert_eq!(weir.entry(&format!("/{n}")).text("reason"), "client_closed");
        }
    });
}

#[test]
fn a_stream_that_its_endpoint_resets_is_502_or_reset_at_the_client() {
    run(async {
        let listener = Listener::bind().await;
        let weir = to(&listener.name);
        let mut client = connect(weir.address).await;
        let post = |path: &str| request("POST", path).body(()).unwrap();
        // Before an answer: a POST is not repeated.
        let (response, _) = client.send(post("/before"), true);
        let mut endpoint = listener.accept().await;
        let (_, mut send) = endpoint.next().await;
        send.send_reset(Reason::INTERNAL_ERROR);
        assert_eq!(within(response).await.unwrap().status(), 502);
        assert_eq!(weir.entry("/before").text("reason"), "upstream_closed");
        // Within an answer.
        let (response, _) = client.send(get("/within"), true);
        let (_, mut send) = endpoint.next().await;
        let mut answer = send.send_response(Response::new(()), false).unwrap();
        answer.send_data("part".into(), false).unwrap();
        let response = within(response).await.unwrap();
        answer.send_reset(Reason::INTERNAL_ERROR);
        let broken = within(frames::read(response.into_body()))
            .await
            .unwrap_err();
        assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(weir.entry("/within").text("reason"), "response_truncated");
        // Both connections stay open.
        let (response, _) = client.send(get("/after"), true);
        let (_, mut send) = endpoint.next().await;
        respond(&mut send, 200, "well");
        assert_eq!(within(response).await.unwrap().status(), 200);
    });
}

/// How an HTTP/1.1 endpoint ends in the middle of an answer.
#[test]
fn an_endpoint_of_http1_that_dies_in_a_body_never_makes_it_look_whole() {
    for (head, part) in [
        ("Content-Length: 100", "part"),
        ("Transfer-Encoding: chunked", "4\r\npart\r\n"),
        ("Transfer-Encoding: chunked", "ff\r\npart"),
    ] {
        for is_reset in [false, true] {
            run(async {
                let (go, wait) = std::sync::mpsc::channel::<()>();
                let wait = std::sync::Mutex::new(wait);
                let endpoint = Endpoint::script(move |conn| {
                    if conn.next_request().is_none() {
                        return;
                    }
                    conn.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{part}"));
                    wait.lock().unwrap().recv_timeout(DEADLINE).unwrap();
                    if is_reset {
                        conn.reset_now();
                    }
                });
                let weir = to(&endpoint.name);
                let mut client = connect(weir.address).await;
                let (response, _) = client.send(get("/"), true);
                let mut body = within(response).await.unwrap().into_body();
                assert_eq!(within(body.data()).await.unwrap().unwrap(), "part");
                go.send(()).unwrap();
                let broken = within(body.data()).await.unwrap().unwrap_err();
                assert!(broken.is_reset() && broken.is_remote(), "{broken}");
                assert_eq!(weir.entry("/").text("reason"), "response_truncated");
                // The connection is still usable.
                drop(endpoint);
                let (response, _) = client.send(get("/again"), true);
                assert_eq!(within(response).await.unwrap().status(), 502);
            });
        }
    }
}

#[test]
fn an_endpoint_of_http2_that_dies_in_bodies_breaks_all_of_them() {
    for down in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let listener = Listener::bind().await;
            let weir = to(&listener.name);
            let mut clients = Vec::new();
            let shared = Client::connect(down, weir.address).await;
            clients.push(shared);
            if down == Protocol::Http1 {
                clients.push(Client::connect(down, weir.address).await);
                clients.push(Client::connect(down, weir.address).await);
            }
            let mut sent = Vec::new();
            for n in 0..3 {
                let at = n % clients.len();
                let asked = request("GET", &format!("/{n}"))
                    .body(Body::empty())
                    .unwrap();
                sent.push(spawn_local(clients[at].send(asked)));
            }
            let mut endpoint = listener.accept().await;
            let mut answers = Vec::new();
            for _ in 0..3 {
                let (_, mut send) = endpoint.next().await;
                let mut answer = send.send_response(Response::new(()), false).unwrap();
                answer.send_data("part".into(), false).unwrap();
                answers.push(answer);
            }
            let mut bodies = Vec::new();
            for sent in sent {
                bodies.push(within(sent).await.unwrap().unwrap().into_body());
            }
            endpoint.vanish().await;
            drop(answers);
            for body in bodies {
                let whole = within(http_body_util::BodyExt::collect(body)).await;
                assert!(whole.is_err(), "an answer looks whole");
            }
            for n in 0..3 {
                assert_eq!(
                    weir.entry(&format!("/{n}")).text("reason"),
                    "response_truncated"
                );
            }
        });
    }
}

/// An answer of another length than announced is a stream error and not a connection error.
#[test]
fn an_answer_of_another_length_than_announced_is_broken_off() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nshort";
    run(async {
        let endpoint = Endpoint::script(move |conn| {
            while conn.next_request().is_some() {
                conn.send_last(short);
            }
        });
        let weir = to(&endpoint.name);
        let mut client = connect(weir.address).await;
        for _ in 0..2 {
            let (response, _) = client.send(get("/"), true);
            let body = within(response).await.unwrap().into_body();
            let broken = within(frames::read(body)).await.unwrap_err();
            assert!(broken.is_reset() && broken.is_remote(), "{broken}");
        }
    });
}

/// The endpoint's error reaches an HTTP/2 client that is still sending.
#[test]
fn an_endpoint_that_dies_in_an_upload_is_502() {
    for up in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let (taken, mut was_taken) = unbounded_channel();
            let endpoint = Endpoint::script(move |conn| {
                if conn.wait_for_bytes() {
                    let head = conn.message_head();
                    assert_eq!(head.method(), "POST");
                    conn.take(1);
                    taken.send(()).unwrap();
                }
            });
            let listener = Listener::bind().await;
            let name = match up {
                Protocol::Http1 => endpoint.name.clone(),
                Protocol::Http2 => listener.name.clone(),
            };
            let weir = to(&name);
            let mut client = connect(weir.address).await;
            let asked = request("POST", "/").body(()).unwrap();
            let (response, mut stream) = client.send(asked, false);
            stream
                .send_data(Bytes::from_static(b"part"), false)
                .unwrap();
            match up {
                Protocol::Http1 => within(was_taken.recv()).await.unwrap(),
                Protocol::Http2 => {
                    let mut connection = listener.accept().await;
                    let (mut asked, _send) = connection.next().await;
                    within(asked.body_mut().data()).await.unwrap().unwrap();
                    connection.vanish().await;
                }
            }
            let response = within(response).await.unwrap();
            assert_eq!(response.status(), 502);
            let body = within(frames::read(response.into_body())).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains("upstream_closed"));
            assert_eq!(
                frames::reset_of(&mut stream).await.unwrap(),
                Reason::NO_ERROR
            );
        });
    }
}

/// An HTTP/1.1 client sees the end by the length: neither it nor its next request waits for the end of the HTTP/2
/// stream.
#[test]
fn an_answer_that_is_whole_by_its_length_waits_for_no_end() {
    run(async {
        let listener = Listener::bind().await;
        let upstream = "pool = { connections = 1 }";
        let keys = "timeouts = { body_stall = \"10m\" }";
        let weir = Weir::start(&routed(
            keys,
            std::slice::from_ref(&listener.name),
            upstream,
        ));
        let mut client = Client::connect(Protocol::Http1, weir.address).await;
        let (mut endpoint, mut open) = (None, Vec::new());
        for (n, method) in ["GET", "HEAD", "GET"].into_iter().enumerate() {
            let asked = request(method, &format!("/{n}"));
            let asked = spawn_local(client.send(asked.body(Body::empty()).unwrap()));
            if n == 0 {
                let mut two = h2::server::Builder::new();
                endpoint = Some(listener.accept_with(two.max_concurrent_streams(2)).await);
            }
            if n == 2 {
                // The maximum number of streams is open. One that ends makes room.
                let queued = "weir_upstream_queue_waiting{upstream=\"up\"}";
                let waits = async {
                    while weir.metric(queued) == 0.0 {
                        tokio::task::yield_now().await;
                    }
                };
                within(waits).await;
                let mut ends: h2::SendStream<Bytes> = open.remove(0);
                ends.send_data(Bytes::new(), true).unwrap();
            }
            let (_, mut send) = endpoint.as_mut().unwrap().next().await;
            let head = Response::builder().header("content-length", "4");
            let mut answer = send.send_response(head.body(()).unwrap(), false).unwrap();
            if method == "GET" {
                answer.send_data("part".into(), false).unwrap();
            }
            open.push(answer);
            let response = within(asked).await.unwrap().unwrap();
            let body = within(http_body_util::BodyExt::collect(response.into_body())).await;
            let body = body.unwrap().to_bytes();
            assert_eq!(body, if method == "GET" { "part" } else { "" });
        }
        // The endpoint sees the remaining streams reset, because no client waits.
        for answer in &mut open {
            assert_eq!(frames::reset_of(answer).await.unwrap(), Reason::CANCEL);
        }
        for n in 0..3 {
            let entry = weir.entry(&format!("/{n}"));
            assert_eq!(
                (entry.text("reason"), entry.number("status")),
                (String::new(), 200.0)
            );
        }
    });
}

#[test]
fn an_answer_that_is_whole_by_its_length_survives_a_reset_behind_it() {
    run(async {
        let listener = Listener::bind().await;
        let weir = to(&listener.name);
        let mut client = Client::connect(Protocol::Http1, weir.address).await;
        let asked = request("GET", "/").body(Body::empty()).unwrap();
        let asked = spawn_local(client.send(asked));
        let mut stream = listener.accept_raw().await;
        let mut preface = [0; 24];
        within(stream.read_exact(&mut preface)).await.unwrap();
        let frames = [
            // SETTINGS; a head with 200 and a length of 4; as much data, without an end; RST_STREAM.
            &b"\0\0\0\x04\0\0\0\0\0"[..],
            b"\0\0\x05\x01\x04\0\0\0\x01\x88\x0f\x0d\x014",
            b"\0\0\x04\0\0\0\0\0\x01part",
            b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02",
        ];
        within(stream.write_all(&frames.concat())).await.unwrap();
        let response = within(asked).await.unwrap().unwrap();
        let body = within(http_body_util::BodyExt::collect(response.into_body())).await;
        assert_eq!(body.unwrap().to_bytes(), "part");
        assert_eq!(weir.entry("/").text("reason"), "");
    });
}

#[test]
fn received_parts_of_an_answer_precede_its_reset() {
    run(async {
        let listener = Listener::bind().await;
        let weir = to(&listener.name);
        let mut client = connect(weir.address).await;
        let (response, _) = client.send(get("/"), true);
        let mut stream = listener.accept_raw().await;
        let mut preface = [0; 24];
        within(stream.read_exact(&mut preface)).await.unwrap();
        let frames = [
            // SETTINGS; a head with 200; data without an end; RST_STREAM.
            &b"\0\0\0\x04\0\0\0\0\0"[..],
            b"\0\0\x01\x01\x04\0\0\0\x01\x88",
            b"\0\0\x04\0\0\0\0\0\x01part",
            b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02",
        ];
        within(stream.write_all(&frames.concat())).await.unwrap();
        let mut body = within(response).await.unwrap().into_body();
        assert_eq!(within(body.data()).await.unwrap().unwrap(), "part");
        let broken = within(body.data()).await.unwrap().unwrap_err();
        assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(weir.entry("/").text("reason"), "response_truncated");
    });
}

/// The stream is gone before Weir reads its request: the log names the client's mistake and not its leaving.
#[test]
fn a_body_error_is_logged_even_before_the_request_is_read() {
    let endpoint = Endpoint::answering(|_| crate::e2e::ok(""));
    let weir = Weir::to(&[&endpoint]);
    let mut stream = std::net::TcpStream::connect(weir.address).unwrap();
    let frames = [
        // The preface; SETTINGS; a POST to / at the host w, of length 0; data.
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"\0\0\x0a\x01\x04\0\0\0\x01\x83\x86\x84\x01\x01w\x0f\x0d\x010",
        b"\0\0\x04\0\x01\0\0\0\x01data",
    ];
    std::io::Write::write_all(&mut stream, &frames.concat()).unwrap();
    assert_eq!(weir.entry("/").text("reason"), "bad_framing");
}
