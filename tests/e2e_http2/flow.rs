//! Flow control: a peer that does not read holds back its own stream's sender and no other.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::task::spawn_local;

use crate::e2e::{Conn, Endpoint, Weir, eventually, ok};
use crate::peers::frames::{Listener, connect, connect_with, respond};
use crate::peers::*;

const PATIENT: &str = "timeouts = { body_stall = \"10m\" }\nlimits = { body_rate = \"off\" }";

fn get(path: &str) -> http::Request<()> {
    request("GET", path).body(()).unwrap()
}

/// An endpoint whose `/large` never ends.
fn large() -> Endpoint {
    Endpoint::script(|conn| {
        while let Some(request) = conn.next_request() {
            if request.target().starts_with("/large") {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n");
                conn.send_until_stuck(200_000_000, crate::e2e::DEADLINE);
                return;
            }
            conn.send(ok("small"));
        }
    })
}

#[test]
fn a_stream_that_its_client_does_not_read_holds_back_no_other_and_little_memory() {
    run(async {
        let endpoint = large();
        let weir = Weir::start(&routed(PATIENT, std::slice::from_ref(&endpoint.name), ""));
        let mut windows = h2::client::Builder::new();
        windows.initial_connection_window_size(1 << 30);
        let mut client = connect_with(weir.address, &windows).await;
        let before = weir.resident_bytes();
        let mut unread = Vec::new();
        for n in 0..20 {
            let response = client.send(get(&format!("/large/{n}")), true).0;
            unread.push(within(response).await.unwrap());
        }
        for n in 0..100 {
            let (status, body) = client.ask(get(&format!("/{n}"))).await;
            assert_eq!((status, body), (200, "small".into()));
        }
        let grown = weir.resident_bytes().saturating_sub(before);
        assert!(grown < 20 * 512 * 1024, "{grown} bytes for 20 streams");
    });
}

/// The client's windows are open, but it does not read from the connection.
#[test]
fn a_client_that_reads_nothing_at_all_costs_bounded_memory() {
    let endpoint = large();
    let weir = Weir::start(&routed(PATIENT, std::slice::from_ref(&endpoint.name), ""));
    let before = weir.resident_bytes();
    let client = Conn::narrow(weir.address);
    // All in one segment: once answers wait for the client, Weir reads no further requests from it.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // The largest windows, then 50 requests.
    bytes.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff");
    bytes.extend(b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0");
    for n in 0..50u8 {
        let block = b"\x82\x86\x04\x06/large\x01\x09weir.test";
        bytes.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 2 * n + 1]);
        bytes.extend(block);
    }
    client.send(bytes);
    eventually("all of them", || {
        (endpoint.connections() == 50).then_some(())
    });
    // Weir receives from the endpoint within milliseconds. A quiet second shows that it receives no more.
    let mut last = 0;
    eventually("nothing more to be taken", || {
        let now = weir.resident_bytes();
        std::mem::replace(&mut last, now)
            .eq(&now)
            .then(|| std::thread::sleep(Duration::from_millis(300)))?;
        (weir.resident_bytes() == now).then_some(())
    });
    let grown = last.saturating_sub(before);
    assert!(grown < 50 * 512 * 1024, "{grown} bytes for 50 streams");
}

#[test]
fn an_endpoint_that_does_not_read_holds_back_the_upload_and_no_other_request() {
    for up in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let wait = std::sync::Mutex::new(wait);
            let endpoint = Endpoint::script(move |conn| {
                while conn.wait_for_bytes() {
                    let head = conn.message_head();
                    if head.method() == "GET" {
                        conn.send(ok("small"));
                        continue;
                    }
                    wait.lock()
                        .unwrap()
                        .recv_timeout(crate::e2e::DEADLINE)
                        .unwrap();
                    let mut request = head;
                    request.read_body(conn, false);
                    conn.send(ok(&request.body.len().to_string()));
                }
            });
            let listener = Listener::bind().await;
            let name = match up {
                Protocol::Http1 => endpoint.name.clone(),
                Protocol::Http2 => listener.name.clone(),
            };
            let (release, mut released) = tokio::sync::watch::channel(false);
            let served = spawn_local(async move {
                let mut connection = listener.accept().await;
                while let Some((request, mut send)) = connection.next_or_end().await {
                    if request.method() == "GET" {
                        respond(&mut send, 200, "small");
                        continue;
                    }
                    let mut released = released.clone();
                    spawn_local(async move {
                        released.wait_for(|released| *released).await.unwrap();
                        let body = frames::read(request.into_body()).await.unwrap();
                        respond(&mut send, 200, body.len().to_string());
                    });
                }
                released.mark_unchanged();
            });
            let weir = Weir::start(&routed(PATIENT, &[name], ""));
            let mut client = connect(weir.address).await;
            let before = weir.resident_bytes();
            let asked = request("POST", "/upload").body(()).unwrap();
            let (response, mut stream) = client.send(asked, false);
            // As much as Weir accepts.
            let mut sent = 0;
            loop {
                stream.reserve_capacity(64 * 1024);
                let room = poll_fn(|cx| stream.poll_capacity(cx));
                let Ok(room) = tokio::time::timeout(Duration::from_millis(500), room).await else {
                    break;
                };
                let room = room.unwrap().unwrap();
                stream.send_data(vec![7; room].into(), false).unwrap();
                sent += room;
                assert!(sent < 60_000_000, "no end of it");
            }
            let grown = weir.resident_bytes().saturating_sub(before);
            assert!(grown < 4_000_000, "{grown} bytes for one upload");
            for n in 0..50 {
                let (status, body) = client.ask(get(&format!("/{n}"))).await;
                assert_eq!((status, body), (200, "small".into()));
            }
            go.send(()).unwrap();
            release.send(true).unwrap();
            stream.send_data(Bytes::new(), true).unwrap();
            let body = within(response).await.unwrap().into_body();
            assert_eq!(within(frames::read(body)).await.unwrap(), sent.to_string());
            drop(weir);
            served.abort();
        });
    }
}

/// Clients are independent of each other, although one endpoint connection carries all their requests.
#[test]
fn clients_that_do_not_read_hold_back_no_other_client_at_the_same_endpoint() {
    const SLOW: usize = 60;
    run(async {
        let listener = Listener::bind().await;
        let name = listener.name.clone();
        let served = spawn_local(async move {
            let mut connection = listener.accept().await;
            while let Some((request, mut send)) = connection.next_or_end().await {
                if request.uri().path() != "/large" {
                    respond(&mut send, 200, pattern(50_000, 3));
                    continue;
                }
                let mut stream = send.send_response(Response::new(()), false).unwrap();
                spawn_local(async move {
                    // Until the client has left.
                    while frames::send_all(&mut stream, pattern(1_000_000, 1), false)
                        .await
                        .is_ok()
                    {}
                });
            }
        });
        let weir = Weir::start(&routed(PATIENT, &[name], ""));
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let conn = Conn::narrow(weir.address);
            conn.send("GET /large HTTP/1.1\r\nHost: weir.test\r\n\r\n");
            slow.push(conn);
        }
        let mut client = connect(weir.address).await;
        for n in 0..30 {
            let (status, body) = client.ask(get(&format!("/{n}"))).await;
            assert_eq!((status, sum(&body)), (200, sum(&pattern(50_000, 3))));
        }
        drop(weir);
        served.abort();
    });
}

/// A stream whose window grew while its client read fast stalls later: it must not hold a whole window.
#[test]
fn a_quick_reader_that_stops_holds_back_no_other_client_at_the_same_endpoint() {
    run(async {
        let listener = Listener::bind().await;
        let name = listener.name.clone();
        let served = spawn_local(async move {
            let mut connection = listener.accept().await;
            while let Some((request, mut send)) = connection.next_or_end().await {
                if request.uri().path() != "/large" {
                    respond(&mut send, 200, pattern(50_000, 3));
                    continue;
                }
                let mut stream = send.send_response(Response::new(()), false).unwrap();
                spawn_local(async move {
                    while frames::send_all(&mut stream, pattern(1_000_000, 1), false)
                        .await
                        .is_ok()
                    {}
                });
            }
        });
        let weir = Weir::start(&routed(PATIENT, &[name], ""));
        let mut stopped = Vec::new();
        for _ in 0..8 {
            let mut quick = connect(weir.address).await;
            let mut body = within(quick.send(get("/large"), true).0)
                .await
                .unwrap()
                .into_body();
            let mut read = 0;
            while read < 20_000_000 {
                let piece = within(body.data()).await.unwrap().unwrap();
                read += piece.len();
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            stopped.push((quick, body));
        }
        let mut client = connect(weir.address).await;
        for n in 0..30 {
            let (status, body) = client.ask(get(&format!("/{n}"))).await;
            assert_eq!((status, sum(&body)), (200, sum(&pattern(50_000, 3))));
        }
        drop(weir);
        served.abort();
    });
}

/// Stalled uploads use up their own windows and leave the connection's window to others.
#[test]
fn stalled_uploads_block_no_other_upload_of_the_same_client() {
    run(async {
        let listener = Listener::bind().await;
        let weir = Weir::start(&routed(PATIENT, std::slice::from_ref(&listener.name), ""));
        let mut client = connect(weir.address).await;
        let served = spawn_local(async move {
            let mut windows = h2::server::Builder::new();
            windows.initial_connection_window_size(1 << 24);
            let mut connection = listener.accept_with(&windows).await;
            let mut unread = Vec::new();
            while let Some((request, mut send)) = connection.next_or_end().await {
                if request.uri().path() == "/unread" {
                    unread.push((request, send));
                    continue;
                }
                spawn_local(async move {
                    let body = frames::read(request.into_body()).await.unwrap();
                    respond(&mut send, 200, body.len().to_string());
                });
            }
        });
        let post = |path: &str| request("POST", path).body(()).unwrap();
        let mut stuck = Vec::new();
        for _ in 0..14 {
            let (response, mut stream) = client.send(post("/unread"), false);
            let upload = pattern(10_000_000, 1);
            let task =
                spawn_local(async move { frames::send_all(&mut stream, upload, true).await });
            stuck.push((response, task));
        }
        for _ in 0..5 {
            let (response, mut stream) = client.send(post("/read"), false);
            within(frames::send_all(&mut stream, pattern(3_000_000, 2), true))
                .await
                .unwrap();
            let body = within(response).await.unwrap().into_body();
            assert_eq!(within(frames::read(body)).await.unwrap(), "3000000");
        }
        drop(weir);
        served.abort();
    });
}
