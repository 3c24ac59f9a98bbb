//! Between a request's head and its end: interim answers, expectations and early answers.

use std::future::poll_fn;
use std::sync::mpsc::channel;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Frame;
use tokio::task::spawn_local;

use crate::e2e::{Conn, Endpoint, Weir, ok};
use crate::peers::*;

/// The interim answers before the final one.
async fn interim(response: &mut h2::client::ResponseFuture) -> Vec<(u16, String)> {
    let mut came = Vec::new();
    while let Some(one) = within(poll_fn(|cx| response.poll_informational(cx))).await {
        let one = one.unwrap();
        let link = one
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        came.push((one.status().as_u16(), link.unwrap_or_default()));
    }
    came
}

#[test]
fn interim_answers_pass_before_the_final_one() {
    let expected = vec![(103, "</a.css>".to_owned()), (103, "</b.css>".to_owned())];
    for (down, up) in PAIRS {
        println!("{down:?} to {up:?}");
        run(async {
            let endpoint = Endpoint::script(|conn| {
                while conn.next_request().is_some() {
                    conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
                    conn.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n");
                    conn.send(ok("final"));
                }
            });
            let listener = frames::Listener::bind().await;
            let name = match up {
                Protocol::Http1 => endpoint.name.clone(),
                Protocol::Http2 => listener.name.clone(),
            };
            spawn_local(async move {
                let mut connection = listener.accept().await;
                while let Some((_, mut send)) = connection.next_or_end().await {
                    for link in ["</a.css>", "</b.css>"] {
                        let hint = Response::builder().status(103).header("link", link);
                        send.send_informational(hint.body(()).unwrap()).unwrap();
                    }
                    frames::respond(&mut send, 200, "final");
                }
            });
            let weir = Weir::start(&routed("", &[name], ""));
            let came = match down {
                Protocol::Http1 => {
                    let (tell, told) = channel();
                    let mut client = Client::connect(down, weir.address).await;
                    let mut asked = request("GET", "/").body(Body::empty()).unwrap();
                    hyper::ext::on_informational(&mut asked, move |one| {
                        let link = one.headers()["link"].to_str().unwrap().to_owned();
                        tell.send((one.status().as_u16(), link)).unwrap();
                    });
                    assert_eq!(client.ask(asked).await.text(), "final");
                    drop(client);
                    told.try_iter().collect()
                }
                Protocol::Http2 => {
                    let mut client = frames::connect(weir.address).await;
                    let asked = request("GET", "/").body(()).unwrap();
                    let (mut response, _) = client.send(asked, true);
                    let came = interim(&mut response).await;
                    let body = within(response).await.unwrap().into_body();
                    assert_eq!(frames::read(body).await.unwrap(), "final");
                    came
                }
            };
            assert_eq!(came, expected);
        });
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked_by_the_endpoint() {
    for (down, up) in PAIRS {
        println!("{down:?} to {up:?}");
        run(async {
            let endpoint = Endpoint::script(|conn| {
                while conn.wait_for_bytes() {
                    let head = conn.message_head();
                    assert_eq!(head.field("expect"), Some("100-continue"));
                    assert!(!conn.is_readable(), "the body came unasked");
                    conn.send("HTTP/1.1 100 Continue\r\n\r\n");
                    let mut request = head;
                    request.read_body(conn, false);
                    conn.send(ok(&request.text()));
                }
            });
            let listener = frames::Listener::bind().await;
            let name = match up {
                Protocol::Http1 => endpoint.name.clone(),
                Protocol::Http2 => listener.name.clone(),
            };
            spawn_local(async move {
                let mut connection = listener.accept().await;
                while let Some((request, mut send)) = connection.next_or_end().await {
                    assert_eq!(request.headers()["expect"], "100-continue");
                    let asked = Response::builder().status(100).body(()).unwrap();
                    send.send_informational(asked).unwrap();
                    spawn_local(async move {
                        let body = frames::read(request.into_body()).await.unwrap();
                        frames::respond(&mut send, 200, body);
                    });
                }
            });
            let weir = Weir::start(&routed("", &[name], ""));
            match down {
                Protocol::Http1 => {
                    let address = weir.address;
                    let talked = tokio::task::spawn_blocking(move || {
                        let mut client = Conn::to(address);
                        client.send(
                            "POST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
                        );
                        assert_eq!(client.message_head().status(), 100);
                        client.send("hello");
                        assert_eq!(client.response().text(), "hello");
                    });
                    within(talked).await.unwrap();
                }
                Protocol::Http2 => {
                    let mut client = frames::connect(weir.address).await;
                    let asked = request("POST", "/")
                        .header("expect", "100-continue")
                        .header("content-length", "5");
                    let (mut response, mut stream) = client.send(asked.body(()).unwrap(), false);
                    let one = within(poll_fn(|cx| response.poll_informational(cx))).await;
                    assert_eq!(one.unwrap().unwrap().status(), 100);
                    stream
                        .send_data(Bytes::from_static(b"hello"), true)
                        .unwrap();
                    let body = within(response).await.unwrap().into_body();
                    assert_eq!(frames::read(body).await.unwrap(), "hello");
                }
            }
        });
    }
}

/// Endpoints of both protocols that answer before the request is complete. `/keep` keeps reading and reports how much
/// came.
async fn early(up: Protocol) -> Server {
    let handler = |request: Request<hyper::body::Incoming>| async move {
        use http_body_util::BodyExt;
        let (pieces, body) = Body::piped(8);
        if request.uri().path() == "/refuse" {
            let answer = Response::builder().status(413).header("x-why", "large");
            return answer.body(Body::of("no more")).unwrap();
        }
        pieces
            .try_send(Frame::data(Bytes::from_static(b"begun ")))
            .unwrap();
        let mut incoming = request.into_body();
        spawn_local(async move {
            let mut len = 0;
            while let Some(Ok(frame)) = incoming.frame().await {
                len += frame.data_ref().map_or(0, Bytes::len);
            }
            let _ = pieces.send(Frame::data(len.to_string().into())).await;
        });
        Response::new(body)
    };
    Server::start(up, handler).await
}

#[test]
fn an_answer_may_begin_while_its_request_is_still_sent() {
    for (down, up) in PAIRS {
        println!("{down:?} to {up:?}");
        run(async {
            let server = early(up).await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&server.name), ""));
            let mut client = Client::connect(down, weir.address).await;
            let (pieces, body) = Body::piped(1);
            let sent = client.send(request("POST", "/keep").body(body).unwrap());
            let response = within(sent).await.unwrap();
            assert_eq!(response.status(), 200);
            for _ in 0..50 {
                let piece = Frame::data(pattern(10_000, 1));
                within(pieces.send(piece)).await.unwrap();
            }
            drop(pieces);
            let whole = http_body_util::BodyExt::collect(response.into_body());
            assert_eq!(within(whole).await.unwrap().to_bytes(), "begun 500000");
        });
    }
}

#[test]
fn a_refusal_while_uploading_reaches_the_client_and_spares_its_connection() {
    for up in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let server = early(up).await;
            let weir = Weir::start(&routed("", std::slice::from_ref(&server.name), ""));
            let mut client = frames::connect(weir.address).await;
            for _ in 0..3 {
                let asked = request("POST", "/refuse").body(()).unwrap();
                let (response, mut stream) = client.send(asked, false);
                // More than any window, so the client cannot send it all unless the endpoint reads.
                let upload = spawn_local(async move {
                    frames::send_all(&mut stream, pattern(50_000_000, 1), true).await
                });
                let response = within(response).await.unwrap();
                assert_eq!(
                    (response.status().as_u16(), &response.headers()["x-why"]),
                    (413, &"large".parse().unwrap())
                );
                assert_eq!(
                    within(frames::read(response.into_body())).await.unwrap(),
                    "no more"
                );
                // The client sees NO_ERROR: the rest of the body is not needed.
                let stopped = within(upload).await.unwrap().unwrap_err();
                assert_eq!(stopped.reason(), Some(h2::Reason::NO_ERROR), "{stopped}");
            }
            let asked = request("POST", "/keep").body(()).unwrap();
            let (response, mut stream) = client.send(asked, false);
            stream.send_data("seven77".into(), true).unwrap();
            let body = within(response).await.unwrap().into_body();
            assert_eq!(within(frames::read(body)).await.unwrap(), "begun 7");
        });
    }
}
