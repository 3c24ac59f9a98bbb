//! Shared HTTP/2 connections to endpoints: their number, start, end and loss.

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use tokio::io::AsyncReadExt;
use tokio::task::spawn_local;

use crate::e2e::Weir;
use crate::peers::frames::{
    ClientConnection, ClosedPort, Listener, ServerConnection, connect, respond,
};
use crate::peers::*;

fn get(path: &str) -> http::Request<()> {
    request("GET", path).body(()).unwrap()
}

fn to(servers: &[&str], keys: &str) -> Weir {
    let servers: Vec<String> = servers.iter().map(|&name| name.to_owned()).collect();
    Weir::start(&routed(keys, &servers, ""))
}

/// An endpoint, a Weir and a client.
async fn set_up(keys: &str) -> (Listener, Weir, ClientConnection) {
    let listener = Listener::bind().await;
    let weir = to(&[&listener.name], keys);
    let client = connect(weir.address).await;
    (listener, weir, client)
}

/// Answers every request on a connection with a word until the connection ends.
fn serve(mut connection: ServerConnection, word: &'static str) -> tokio::task::JoinHandle<usize> {
    spawn_local(async move {
        let mut count = 0;
        while let Some((request, mut send)) = connection.next_or_end().await {
            count += 1;
            spawn_local(async move {
                if frames::read(request.into_body()).await.is_ok() {
                    respond(&mut send, 200, word);
                }
            });
        }
        count
    })
}

/// Accepts `count` requests and does not answer them.
async fn hold(connection: &mut ServerConnection, count: usize) -> Vec<SendResponse<Bytes>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(connection.next().await.1);
    }
    held
}

#[test]
fn requests_share_a_connection_up_to_what_the_endpoint_takes_and_then_another() {
    run(async {
        let (listener, _weir, mut client) = set_up("").await;
        let mut limited = h2::server::Builder::new();
        limited.max_concurrent_streams(3);
        // The first request teaches Weir the endpoint's limits.
        let warm = client.send(get("/warm"), true).0;
        let mut first = listener.accept_with(&limited).await;
        let (_, mut send) = first.next().await;
        respond(&mut send, 200, "warm");
        within(warm).await.unwrap();
        let sent: Vec<_> = (0..5)
            .map(|n| client.send(get(&format!("/{n}")), true).0)
            .collect();
        let mut held = hold(&mut first, 3).await;
        let mut second = listener.accept_with(&limited).await;
        held.extend(hold(&mut second, 2).await);
        held.iter_mut().for_each(|send| respond(send, 200, "held"));
        for response in sent {
            assert_eq!(within(response).await.unwrap().status(), 200);
        }
        // Weir uses the older connection again, because it has room.
        let last = client.send(get("/last"), true).0;
        let (_, mut send) = first.next().await;
        respond(&mut send, 200, "last");
        assert_eq!(within(last).await.unwrap().status(), 200);
    });
}

/// Weir knows nothing of the endpoint when all requests come.
#[test]
fn a_burst_on_a_cold_upstream_is_within_what_the_endpoint_takes() {
    run(async {
        let (listener, weir, mut client) = set_up("retries = 0").await;
        let sent: Vec<_> = (0..8)
            .map(|n| client.send(get(&format!("/{n}")), true).0)
            .collect();
        spawn_local(async move {
            loop {
                let mut limited = h2::server::Builder::new();
                serve(
                    listener
                        .accept_with(limited.max_concurrent_streams(2))
                        .await,
                    "taken",
                );
            }
        });
        for response in sent {
            assert_eq!(within(response).await.unwrap().status(), 200);
        }
        for n in 0..8 {
            let attempts = weir.entry(&format!("/{n}")).number("attempts");
            assert_eq!(attempts, 1.0, "the endpoint refused request {n}");
        }
    });
}

#[test]
fn a_burst_on_a_cold_upstream_makes_one_connection() {
    run(async {
        let (listener, weir, mut client) = set_up("").await;
        let sent: Vec<_> = (0..50)
            .map(|n| client.send(get(&format!("/{n}")), true).0)
            .collect();
        let served = serve(listener.accept().await, "one");
        for response in sent {
            assert_eq!(within(response).await.unwrap().status(), 200);
        }
        assert!(!listener.has_another().await);
        drop(weir);
        assert_eq!(within(served).await.unwrap(), 50);
    });
}

#[test]
fn requests_that_an_endpoint_has_begun_are_finished_after_its_goaway_and_later_ones_go_elsewhere() {
    run(async {
        let (listener, weir, mut client) = set_up("").await;
        let under_way = client.send(get("/under-way"), true).0;
        let mut old = listener.accept().await;
        let (_, mut send) = old.next().await;
        old.go_away();
        // After a PING's round trip the endpoint names its last stream. A request in between may go either way and is
        // answered in any case.
        let between = client.send(get("/between"), true).0;
        let new = spawn_local(async move { serve(listener.accept().await, "new").await });
        let old_served = spawn_local(async move {
            while let Some((_, mut send)) = old.next_or_end().await {
                respond(&mut send, 200, "old");
            }
            old.task.await.unwrap()
        });
        assert_eq!(within(between).await.unwrap().status(), 200);
        let (status, body) = client.ask(get("/later")).await;
        assert_eq!((status, body), (200, "new".into()));
        respond(&mut send, 200, "finished");
        let body = within(under_way).await.unwrap().into_body();
        assert_eq!(frames::read(body).await.unwrap(), "finished");
        // Weir closes the old connection once it carries no stream.
        assert!(within(old_served).await.unwrap().is_none());
        drop(weir);
        within(new).await.unwrap().unwrap();
    });
}

/// Any method may be repeated, because the endpoint says that it has not processed the request.
#[test]
fn a_refused_request_is_repeated_with_its_body_whatever_its_method() {
    for method in ["GET", "POST", "PATCH"] {
        run(async {
            let (listener, weir, mut client) =
                set_up("retries = { count = 1, budget = \"0%\", budget_min = 0 }").await;
            let asked = request(method, "/").body(()).unwrap();
            let (response, mut stream) = client.send(asked, false);
            stream.send_data("a body".into(), true).unwrap();
            let mut endpoint = listener.accept().await;
            let (request, mut send) = endpoint.next().await;
            assert_eq!(frames::read(request.into_body()).await.unwrap(), "a body");
            send.send_reset(Reason::REFUSED_STREAM);
            let (request, mut send) = endpoint.next().await;
            assert_eq!(request.method().as_str(), method);
            assert_eq!(frames::read(request.into_body()).await.unwrap(), "a body");
            respond(&mut send, 200, "second try");
            let body = within(response).await.unwrap().into_body();
            assert_eq!(frames::read(body).await.unwrap(), "second try");
            assert_eq!(weir.entry("/").number("attempts"), 2.0);
        });
    }
}

#[test]
fn a_request_that_is_refused_for_ever_is_502_and_not_repeated_for_ever() {
    run(async {
        let (listener, weir, mut client) = set_up("retries = 2").await;
        let response = client.send(get("/"), true).0;
        let mut endpoint = listener.accept().await;
        for _ in 0..3 {
            endpoint.next().await.1.send_reset(Reason::REFUSED_STREAM);
        }
        assert_eq!(within(response).await.unwrap().status(), 502);
        assert_eq!(weir.entry("/").number("attempts"), 3.0);
    });
}

/// The endpoint resets a stream with another code than REFUSED_STREAM: it may have processed the POST.
#[test]
fn a_post_that_an_endpoint_may_have_seen_is_never_sent_twice() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        run(async {
            let (listener, weir, mut client) = set_up("retries = 5").await;
            let warm = client.send(get("/warm"), true).0;
            let mut endpoint = listener.accept().await;
            respond(&mut endpoint.next().await.1, 200, "warm");
            within(warm).await.unwrap();
            let post = request("POST", "/").body(()).unwrap();
            let response = client.send(post, true).0;
            endpoint.next().await.1.send_reset(reason);
            assert_eq!(within(response).await.unwrap().status(), 502);
            assert_eq!(weir.entry("/").number("attempts"), 1.0);
            // The next request that the endpoint sees is another one.
            let after = client.send(get("/after"), true).0;
            let (seen, mut send) = endpoint.next().await;
            assert_eq!(seen.uri().path(), "/after");
            respond(&mut send, 200, "after");
            within(after).await.unwrap();
        });
    }
}

#[test]
fn a_connection_that_died_while_it_was_idle_is_not_used() {
    run(async {
        let (listener, weir, mut client) = set_up("retries = 0").await;
        for n in 0..3 {
            let response = client.send(get(&format!("/{n}")), true).0;
            let mut endpoint = listener.accept().await;
            respond(&mut endpoint.next().await.1, 200, "served");
            assert_eq!(within(response).await.unwrap().status(), 200);
            endpoint.vanish().await;
            // Weir knows once its metric shows it.
            let name = format!(
                "weir_endpoint_connections_open{{upstream=\"up\",endpoint=\"{}\"}}",
                listener.name
            );
            let page = weir.admin("/metrics").text();
            assert!(page.contains(&name), "{page}");
            crate::e2e::eventually("the connection's end", || {
                (weir.metric(&name) == 0.0).then_some(())
            });
        }
    });
}

/// The endpoint closes while a request is on its way.
#[test]
fn a_request_that_meets_the_end_of_an_idle_connection_is_sent_again_on_a_fresh_one() {
    run(async {
        let (listener, _weir, mut client) =
            set_up("retries = { count = 1, budget = \"0%\", budget_min = 0 }").await;
        let warm = client.send(get("/warm"), true).0;
        let mut endpoint = listener.accept().await;
        respond(&mut endpoint.next().await.1, 200, "warm");
        within(warm).await.unwrap();
        let response = client.send(get("/"), true).0;
        let _unanswered = endpoint.next().await;
        endpoint.vanish().await;
        let mut endpoint = listener.accept().await;
        respond(&mut endpoint.next().await.1, 200, "fresh");
        let body = within(response).await.unwrap().into_body();
        assert_eq!(frames::read(body).await.unwrap(), "fresh");
    });
}

#[test]
fn an_unused_connection_is_closed_after_its_time() {
    run(async {
        let listener = Listener::bind().await;
        let weir = to(&[&listener.name], "timeouts = { upstream_idle = \"1s\" }");
        let mut client = connect(weir.address).await;
        let response = client.send(get("/"), true).0;
        let mut endpoint = listener.accept().await;
        respond(&mut endpoint.next().await.1, 200, "served");
        within(response).await.unwrap();
        // By an orderly close.
        assert!(endpoint.next_or_end().await.is_none());
        assert!(within(endpoint.task).await.unwrap().is_none());
    });
}

#[test]
fn all_that_wait_for_a_connection_go_to_the_next_endpoint_when_it_fails() {
    run(async {
        let dead = ClosedPort::bind();
        let listener = Listener::bind().await;
        let weir = to(&[&dead.name, &listener.name], "");
        let mut client = connect(weir.address).await;
        let sent: Vec<_> = (0..40)
            .map(|n| client.send(get(&format!("/{n}")), true).0)
            .collect();
        serve(listener.accept().await, "alive");
        for response in sent {
            assert_eq!(within(response).await.unwrap().status(), 200);
        }
        assert!(!listener.has_another().await);
    });
}

#[test]
fn all_that_wait_for_a_connection_hear_when_there_is_none_to_be_had() {
    run(async {
        let dead = ClosedPort::bind();
        let weir = to(&[&dead.name], "retries = 0");
        let mut client = connect(weir.address).await;
        let sent: Vec<_> = (0..40)
            .map(|n| client.send(get(&format!("/{n}")), true).0)
            .collect();
        for response in sent {
            assert_eq!(within(response).await.unwrap().status(), 502);
        }
    });
}

/// ALPN offers HTTP/2 and the endpoint chooses HTTP/1.1: requests that waited for the shared connection get their own.
#[test]
fn an_https_endpoint_without_http2_serves_a_burst_over_http1() {
    for retries in [0, 1] {
        run(async {
            let (dir, tls) = (Weir::dir(), Tls::new());
            let (_, upstream) = tls.files(&dir);
            let server =
                Server::start_tls(Protocol::Http1, &tls, async |_| answer("by itself")).await;
            let keys = format!("retries = {retries}");
            let config = routed(&keys, std::slice::from_ref(&server.name), &upstream);
            let weir = Weir::start_in(&dir, &config);
            let mut client = connect(weir.address).await;
            let sent: Vec<_> = (0..10)
                .map(|n| client.send(get(&format!("/{n}")), true).0)
                .collect();
            for response in sent {
                assert_eq!(within(response).await.unwrap().status(), 200);
            }
        });
    }
}

/// The endpoint does not speak HTTP/2.
#[test]
fn an_endpoint_that_speaks_something_else_is_502() {
    run(async {
        let endpoint = crate::e2e::Endpoint::script(|conn| {
            conn.wait_for_bytes();
            conn.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            conn.rest();
        });
        let weir = to(&[&format!("h2c://{}", endpoint.name)], "retries = 0");
        let mut client = connect(weir.address).await;
        for n in 0..3 {
            let (status, _) = client.ask(get(&format!("/{n}"))).await;
            assert_eq!(status, 502);
        }
    });
}

/// The endpoint accepts the connection and sends nothing, not even SETTINGS.
#[test]
fn an_endpoint_that_never_says_a_word_is_504_after_the_time_for_a_first_byte() {
    run(async {
        let listener = Listener::bind().await;
        let keys = "retries = 0\ntimeouts = { first_byte = \"500ms\", connect = \"500ms\" }";
        let weir = to(&[&listener.name], keys);
        let mut client = connect(weir.address).await;
        let sent: Vec<_> = (0..5)
            .map(|n| client.send(get(&format!("/{n}")), true).0)
            .collect();
        let mut stream = listener.accept_raw().await;
        for response in sent {
            assert_eq!(within(response).await.unwrap().status(), 504);
        }
        assert!(
            !listener.has_another().await,
            "a connection for each request"
        );
        drop(weir);
        let mut said = Vec::new();
        // By close or reset, because the endpoint has read nothing.
        let _ = within(stream.read_to_end(&mut said)).await;
    });
}

#[test]
fn a_broken_frame_of_the_endpoints_ends_its_connection_and_not_the_clients() {
    run(async {
        let (listener, _weir, mut client) = set_up("retries = 0").await;
        let response = client.send(get("/"), true).0;
        let mut stream = listener.accept_raw().await;
        let mut preface = [0; 24];
        within(stream.read_exact(&mut preface)).await.unwrap();
        // SETTINGS, then a frame of a stream that was never opened.
        tokio::io::AsyncWriteExt::write_all(
            &mut stream,
            b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x08\0\0\0\0\x07\0\0\0\x01",
        )
        .await
        .unwrap();
        assert_eq!(within(response).await.unwrap().status(), 502);
        let response = client.send(get("/again"), true).0;
        serve(listener.accept().await, "well");
        assert_eq!(within(response).await.unwrap().status(), 200);
    });
}

/// A client that leaves resets its stream and leaves the connection to others.
#[test]
fn a_shared_connection_outlives_clients_that_leave() {
    run(async {
        let listener = Listener::bind().await;
        let weir = to(&[&listener.name], "");
        let mut stays = connect(weir.address).await;
        let kept = stays.send(get("/kept"), true).0;
        let mut endpoint = listener.accept().await;
        let (_, mut kept_send) = endpoint.next().await;
        for n in 0..20 {
            let mut leaves = connect(weir.address).await;
            let _response = leaves.send(get(&format!("/{n}")), true).0;
            let (_, mut send) = endpoint.next().await;
            leaves.task.abort();
            drop((leaves.sender, _response));
            assert_eq!(
                frames::reset_of_request(&mut send).await.unwrap(),
                Reason::CANCEL
            );
        }
        respond(&mut kept_send, 200, "kept");
        assert_eq!(within(kept).await.unwrap().status(), 200);
        assert!(!endpoint.task.is_finished());
    });
}

/// Waiting requests start as soon as there is room, and not one by one.
/// Waits until this many requests wait for a place at the endpoint.
async fn queued_up(weir: &Weir, count: f64) {
    // HTTP/2 clients are tasks of this thread, which therefore must not block.
    let reached = async {
        while weir.metric("weir_upstream_queue_waiting{upstream=\"up\"}") != count {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
}

#[test]
fn a_place_that_is_not_taken_after_all_is_for_the_next_in_the_queue() {
    run(async {
        let listener = Listener::bind().await;
        let config = routed(
            "retries = 0",
            std::slice::from_ref(&listener.name),
            "pool = { connections = 1 }",
        );
        let weir = Weir::start(&config);
        let mut client = connect(weir.address).await;
        let first = client.send(get("/first"), true).0;
        let mut limited = h2::server::Builder::new();
        let limited = limited.max_concurrent_streams(1);
        let mut endpoint = listener.accept_with(limited).await;
        let (_, mut send) = endpoint.next().await;
        // The request waits like any other, and Weir finds in its turn that this endpoint cannot serve it.
        let mut upgrade = weir.connect();
        upgrade.send(
            "GET /upgrade HTTP/1.1\r\nHost: weir.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        queued_up(&weir, 1.0).await;
        let next = client.send(get("/next"), true).0;
        queued_up(&weir, 2.0).await;
        respond(&mut send, 200, "first");
        let served = serve(endpoint, "next");
        assert_eq!(within(first).await.unwrap().status(), 200);
        assert_eq!(within(next).await.unwrap().status(), 200);
        assert!(upgrade.response().text().contains("bad_upgrade"));
        drop((weir, client));
        within(served).await.unwrap();
    });
}

#[test]
fn all_that_queue_are_let_in_when_a_connection_takes_more_than_the_one_before() {
    run(async {
        let listener = Listener::bind().await;
        let upstream = "pool = { connections = 1 }";
        let config = routed(
            "retries = 0",
            std::slice::from_ref(&listener.name),
            upstream,
        );
        let weir = Weir::start(&config);
        let mut client = connect(weir.address).await;
        let broken = client.send(get("/broken"), true).0;
        let mut limited = h2::server::Builder::new();
        let mut first = listener
            .accept_with(limited.max_concurrent_streams(1))
            .await;
        let held = hold(&mut first, 1).await;
        let queued: Vec<_> = (0..5)
            .map(|n| client.send(get(&format!("/{n}")), true).0)
            .collect();
        queued_up(&weir, 5.0).await;
        first.vanish().await;
        drop(held);
        assert_eq!(within(broken).await.unwrap().status(), 502);
        let mut second = listener.accept().await;
        let mut held = hold(&mut second, 5).await;
        held.iter_mut().for_each(|send| respond(send, 200, "in"));
        for response in queued {
            assert_eq!(within(response).await.unwrap().status(), 200);
        }
        let reused = format!(
            "weir_endpoint_reuses_total{{upstream=\"up\",endpoint=\"{}\"}}",
            &listener.name
        );
        assert!(weir.admin("/metrics").text().contains(&reused));
        assert_eq!(weir.metric(&reused), 4.0, "one of the five has made it");
    });
}
