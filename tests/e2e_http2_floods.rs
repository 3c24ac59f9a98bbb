//! Attacks of HTTP/2 clients. The attacking connection ends with the right error code or costs a bounded amount, a
//! bystander on the same core is served throughout, and no work continues for a connection that has ended.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod floods;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::*;
use floods::*;

/// How much all connections of a test may grow the process: the bound of one connection in `LIFECYCLE.md`, plus the
/// allocator's and a debug build's overhead.
const GROWS_BYTES_MAX: u64 = 32 << 20;

/// An endpoint that reads and never answers, and the number of open connections to it.
fn unanswering_endpoint() -> (Endpoint, Arc<AtomicUsize>) {
    let open = Arc::<AtomicUsize>::default();
    let count = open.clone();
    let endpoint = Endpoint::script(move |conn| {
        count.fetch_add(1, Ordering::SeqCst);
        conn.rest();
        count.fetch_sub(1, Ordering::SeqCst);
    });
    (endpoint, open)
}

/// An endpoint that reads nothing until the returned sender is dropped.
fn unreading_endpoint() -> (Endpoint, Sender<()>) {
    let (release, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let endpoint = Endpoint::script(move |_conn| {
        let _ = wait.lock().unwrap().recv();
    });
    (endpoint, release)
}

/// An endpoint whose answers never end.
fn endless_endpoint() -> Endpoint {
    Endpoint::script(|conn| {
        if conn.next_request().is_none() {
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while conn.try_send([b'x'; 64 * 1024]).is_ok() {}
    })
}

/// A Weir that answers `/good` itself, routes `/up` to an endpoint and answers everything else with an error.
fn server(keys: &str, endpoint: &Endpoint) -> Arc<Weir> {
    server_at(keys, &endpoint.name)
}

/// Like `server`, with the endpoint given by its address.
fn server_at(keys: &str, endpoint: &str) -> Arc<Weir> {
    Arc::new(Weir::start(&format!(
        "{keys}\n[upstream.up]\nservers = [{endpoint:?}]\n\
         [[route]]\nmatch = \"/good\"\nrespond = \"good\"\n\
         [[route]]\nmatch = \"/up*\"\nto = \"up\"\n\
         [[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n",
    )))
}

/// Runs an attack against a server. Returns the code with which the attacking connection ended.
#[track_caller]
fn survives(weir: &Arc<Weir>, attack: impl FnOnce(&Weir) -> Option<u32>) -> Option<u32> {
    let bystander = Bystander::of(weir);
    bystander.expect_more_answers();
    let before = bystander.resident_max();
    let code = attack(weir);
    bystander.expect_more_answers();
    let grown = bystander.resident_max() - before;
    println!("grown by {} KiB", grown >> 10);
    assert!(grown < GROWS_BYTES_MAX, "grown by {grown} bytes");
    drop(bystander);
    wait_until_at_rest(weir);
    code
}

/// Waits until every exchange has ended, at endpoints too.
#[track_caller]
fn wait_until_at_rest(weir: &Weir) {
    eventually("every exchange has ended", || {
        let active = weir.metric("weir_core_exchanges_active{core=\"0\"}");
        (active == 0.0).then_some(())
    });
    assert_eq!(weir.metric("weir_core_panics_total{core=\"0\"}"), 0.0);
}

/// Runs an attack that floods frames after `before`.
#[track_caller]
fn ends_calmly(before: &[u8], what: impl FnMut(u32) -> Vec<u8>) {
    let (endpoint, open) = unanswering_endpoint();
    let weir = server("", &endpoint);
    let code = survives(&weir, |weir| {
        let mut peer = Peer::to(weir);
        peer.send(before);
        peer.flood(100_000, what);
        peer.end()
    });
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    eventually("nothing asked for nobody", || {
        (open.load(Ordering::SeqCst) == 0).then_some(())
    });
}

/// Encodes a request on a stream, with or without END_STREAM in `flags`.
fn ask(stream: u32, flags: u8, path: &str) -> Vec<u8> {
    let block = request(if flags & END == 0 { "POST" } else { "GET" }, path, &[]);
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

#[test]
fn rapid_reset() {
    ends_calmly(&[], |stream| {
        [ask(stream, END, "/up"), number(RST_STREAM, stream, 8)].concat()
    });
}

#[test]
fn resets_that_the_client_provokes() {
    let ways: [fn(u32) -> Vec<u8>; 5] = [
        |stream| number(WINDOW_UPDATE, stream, 0),
        |stream| number(WINDOW_UPDATE, stream, 0x7fff_ffff),
        |stream| frame(DATA, 0, stream, b"behind the end"),
        |stream| frame(HEADERS, END_HEADERS, stream, &block(&[(":late", "x")])),
        |_| Vec::new(),
    ];
    for (at, way) in ways.into_iter().enumerate() {
        ends_calmly(&[], |stream| match at {
            4 => {
                let block = request("POST", "/up", &[("content-length", "3")]);
                let head = frame(HEADERS, END_HEADERS, stream, &block);
                [head, frame(DATA, END, stream, b"four")].concat()
            }
            _ => [ask(stream, END, "/up"), way(stream)].concat(),
        });
    }
}

#[test]
fn requests_that_are_no_requests() {
    ends_calmly(&[], |stream| {
        frame(HEADERS, END | END_HEADERS, stream, &block(&[("a", "b")]))
    });
}

#[test]
fn continuations_without_end() {
    let head = frame(HEADERS, END, 1, &request("GET", "/up", &[]));
    ends_calmly(&head, |_| frame(CONTINUATION, 0, 1, &block(&[("a", "b")])));
    ends_calmly(&head, |_| frame(CONTINUATION, 0, 1, &[]));
}

#[test]
fn floods_of_frames_that_bring_nothing() {
    let open = ask(1, 0, "/up");
    ends_calmly(&[], |n| settings(&[(4, n)]));
    ends_calmly(&[], |_| frame(PING, 0, 0, b"anybody?"));
    ends_calmly(&[], |_| frame(PING, END, 0, b"answered"));
    ends_calmly(&open, |n| frame(PRIORITY, 0, n, &[0, 0, 0, 0, 9]));
    ends_calmly(&open, |_| frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"));
    ends_calmly(&open, |_| number(WINDOW_UPDATE, 1, 1));
    ends_calmly(&open, |_| number(WINDOW_UPDATE, 0, 1));
    ends_calmly(&open, |_| frame(0xfe, 0, 0, &[0; 1000]));
    ends_calmly(&open, |_| frame(DATA, 0, 1, &[]));
    ends_calmly(&open, |_| {
        let padded = [&[255][..], &[0; 255]].concat();
        frame(DATA, PADDED, 1, &padded)
    });
    ends_calmly(&open, |_| frame(GOAWAY, 0, 0, &[0; 8]));
    let ended = [ask(1, END, "/hello"), ask(3, 0, "/up")].concat();
    ends_calmly(&ended, |_| number(RST_STREAM, 1, 8));
}

#[test]
fn data_in_pieces_of_one_byte() {
    let (endpoint, _release) = unreading_endpoint();
    let weir = server("", &endpoint);
    let code = survives(&weir, |weir| {
        let mut peer = Peer::to(weir);
        peer.send(ask(1, 0, "/up"));
        peer.flood(60_000, |_| frame(DATA, 0, 1, b"x"));
        // Weir takes what fits its limit or refuses the excess, never more.
        peer.send(number(RST_STREAM, 1, 8));
        peer.get(3, "/hello");
        peer.answer(3).map(|_| NO_ERROR).or(Some(ENHANCE_YOUR_CALM))
    });
    assert!(matches!(code, Some(NO_ERROR | ENHANCE_YOUR_CALM)));
}

#[test]
fn more_streams_than_announced() {
    ends_calmly(&[], |stream| ask(stream, END, "/up"));
}

#[test]
fn references_to_large_fields() {
    // One field that fills the table, then a byte for each reference to it.
    let value = "v".repeat(4_000);
    let mut bomb = request("GET", "/hello", &[]);
    bomb.push(0x40);
    bomb.extend(&block(&[("x", &value)])[1..]);
    let bytes = bomb.len();
    bomb.extend(vec![0x80 | 62; 16_000 - bytes]);
    let (endpoint, _) = unanswering_endpoint();
    let weir = server("", &endpoint);
    let code = survives(&weir, |weir| {
        let mut peer = Peer::to(weir);
        peer.flood(1_000, |stream| {
            frame(HEADERS, END | END_HEADERS, stream, &bomb)
        });
        peer.end()
    });
    assert_eq!(code, Some(COMPRESSION_ERROR));
}

#[test]
fn heads_as_large_as_they_may_be_on_streams_that_stay() {
    let (endpoint, open) = unanswering_endpoint();
    let weir = server("limits = { fields = 1000 }", &endpoint);
    // Cookie crumbs are joined, so Weir holds twice what was sent.
    let crumb = "c".repeat(150);
    let crumbs: Vec<_> = (0..80).map(|_| ("cookie", crumb.as_str())).collect();
    let large = request("GET", "/up", &crumbs);
    let code = survives(&weir, |weir| {
        let mut peer = Peer::to(weir);
        for stream in 0..100 {
            peer.send(frame(HEADERS, END | END_HEADERS, 2 * stream + 1, &large));
        }
        eventually("all were asked", || {
            (open.load(Ordering::SeqCst) == 100).then_some(())
        });
        // Beyond the limit of the field list Weir answers with an error.
        for stream in 0..100 {
            peer.send(number(RST_STREAM, 2 * stream + 1, 8));
        }
        peer.get(201, "/hello");
        peer.answer(201).map(|_| NO_ERROR)
    });
    assert_eq!(code, Some(NO_ERROR));
}

#[test]
fn windows_that_stay_shut() {
    let endpoint = endless_endpoint();
    let weir = server("timeouts = { body_stall = \"1s\" }", &endpoint);
    let code = survives(&weir, |weir| {
        let mut peer = Peer::with(weir.address, &[(4, 0)]);
        (0..100).for_each(|n| peer.get(2 * n + 1, "/up"));
        let mut resets = 0;
        peer.find(|frame| {
            resets += usize::from(frame.kind == RST_STREAM);
            (resets == 100).then_some(NO_ERROR)
        })
    });
    assert_eq!(code, Some(NO_ERROR), "each stream is given up");
}

#[test]
fn windows_that_open_by_a_byte() {
    let endpoint = endless_endpoint();
    let weir = server("", &endpoint);
    let code = survives(&weir, |weir| {
        // A stream of its own uses up the connection's window first.
        let mut peer = Peer::with(weir.address, &[(4, 0x7fff_ffff)]);
        (0..100).for_each(|n| peer.get(2 * n + 1, "/up"));
        let mut taken = 0;
        peer.find(|frame| {
            taken += if frame.kind == DATA {
                frame.payload.len()
            } else {
                0
            };
            (taken == 65_535).then_some(())
        });
        // The open stream windows let nothing through, because the connection's window is shut.
        peer.flood(5_000, |_| number(WINDOW_UPDATE, 0, 1));
        peer.end()
    });
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
}

/// Each connection holds what one may. Together they exceed the budget, and Weir closes the largest holders.
#[test]
fn many_connections_whose_windows_stay_shut() {
    let endpoint = endless_endpoint();
    let weir = server("limits = { memory_per_core = \"8MiB\" }", &endpoint);
    survives(&weir, |weir| {
        let peers: Vec<_> = (0..12)
            .map(|_| {
                let mut peer = Peer::with(weir.address, &[(4, 0)]);
                (0..100).for_each(|n| peer.get(2 * n + 1, "/up"));
                let mut heads = 0;
                peer.find(|frame| {
                    heads += usize::from(frame.kind == HEADERS);
                    (heads == 100 || frame.kind == GOAWAY).then_some(())
                });
                peer
            })
            .collect();
        weir.wait_for("connection ended: holds_too_much");
        assert!(weir.metric("weir_core_shed_total{core=\"0\"}") >= 1.0);
        weir.entry_with("reason", "memory_limit");
        drop(peers);
        None
    });
}

#[test]
fn answers_that_nobody_reads() {
    let endpoint = endless_endpoint();
    let weir = server("timeouts = { body_stall = \"1s\" }", &endpoint);
    survives(&weir, |weir| {
        let mut peer = Peer::narrow(weir.address).start_http2(&[(4, 0x7fff_ffff)]);
        peer.send(number(WINDOW_UPDATE, 0, 0x7fff_0000));
        (0..100).for_each(|n| peer.get(2 * n + 1, "/up"));
        eventually("the connection is given up", || {
            (weir.metric("weir_core_connections_open{core=\"0\"}") == 2.0).then_some(())
        });
        weir.entry_with("reason", "client_stalled");
        None
    });
}

/// Over a link that is slow for all streams, the last ones in order wait longer than `client_stall`. Weir must not end
/// them, because the client reads all that the link carries.
#[test]
fn answers_that_others_go_before_are_not_given_up() {
    const COUNT: u32 = 20;
    const STALL: Duration = Duration::from_millis(500);
    let body = "x".repeat(100_000);
    let endpoint = Endpoint::answering(move |_| ok(&body));
    let weir = server("timeouts = { body_stall = \"500ms\" }", &endpoint);
    let mut peer = Peer::with(weir.address, &[(4, 0x7fff_ffff)]);
    for n in 0..COUNT {
        let fields = request("GET", "/up", &[("priority", "u=3")]);
        peer.send(frame(HEADERS, END | END_HEADERS, 2 * n + 1, &fields));
    }
    let (mut taken, mut room, began) = (0, 65_535, Instant::now());
    let mut ended = 0;
    while ended < 2 * COUNT {
        let frame = peer.next().unwrap();
        assert!(frame.kind != RST_STREAM, "{frame:?}");
        ended += u32::from(frame.ends());
        if frame.kind == DATA {
            taken += frame.payload.len();
        }
        if frame.kind == DATA && taken == 65_535 {
            // Answers of Weir's own, queued after all others.
            for n in COUNT..2 * COUNT {
                let fields = request("GET", "/hello", &[("priority", "u=7")]);
                peer.send(self::frame(HEADERS, END | END_HEADERS, 2 * n + 1, &fields));
            }
        }
        if taken == room && ended < 2 * COUNT {
            // A slow link for a while.
            let is_slow = began.elapsed() < 4 * STALL;
            let more = if is_slow { 4_096 } else { 1 << 20 };
            std::thread::sleep(if is_slow { STALL / 20 } else { Duration::ZERO });
            peer.send(number(WINDOW_UPDATE, 0, more as u32));
            room += more;
        }
    }
}

#[test]
fn uploads_that_do_not_read_the_answers() {
    let answer = "x".repeat(8_000);
    let back = Weir::start(&format!(
        "access_log = \"off\"\n[[route]]\nmatch = \"/*\"\nrespond = \"{answer}\"\n"
    ));
    let weir = server_at(
        "timeouts = { body_stall = \"1s\" }",
        &back.address.to_string(),
    );
    survives(&weir, |weir| {
        let mut peer = Peer::narrow(weir.address).start_http2(&[(4, 0x7fff_ffff)]);
        peer.send(number(WINDOW_UPDATE, 0, 0x7fff_0000));
        let body = [b'x'; 8_000];
        // Until Weir takes no more.
        peer.flood(20_000, |stream| {
            let data = frame(DATA, END, stream, &body);
            [ask(stream, 0, "/up"), data].concat()
        });
        eventually("the connection is given up", || {
            (weir.metric("weir_core_connections_open{core=\"0\"}") == 2.0).then_some(())
        });
        None
    });
}

#[test]
fn requests_that_do_not_end() {
    let (endpoint, open) = unanswering_endpoint();
    let weir = server("timeouts = { body_stall = \"1s\" }", &endpoint);
    let code = survives(&weir, |weir| {
        let mut peer = Peer::to(weir);
        (0..100).for_each(|n| {
            peer.send(ask(2 * n + 1, 0, "/up"));
        });
        let mut resets = 0;
        peer.find(|frame| {
            resets += usize::from(frame.kind == RST_STREAM);
            (resets == 100).then_some(())
        });
        // The connection goes on.
        peer.get(201, "/hello");
        peer.answer(201).map(|_| NO_ERROR)
    });
    assert_eq!(code, Some(NO_ERROR));
    eventually("nothing asked for nobody", || {
        (open.load(Ordering::SeqCst) == 0).then_some(())
    });
}

/// Each received block holds one large piece. A stream that waits holds the piece and not the block.
#[test]
fn pieces_hold_no_more_than_they_are() {
    let (endpoint, _) = unanswering_endpoint();
    // All requests but one wait for a connection.
    let config = "[upstream.up.pool]\nconnections = 1";
    let weir = server(config, &endpoint);
    survives(&weir, |weir| {
        let mut peers: Vec<_> = (0..8).map(|_| Peer::to(weir)).collect();
        for peer in &mut peers {
            (1..16).for_each(|n| {
                peer.send(ask(2 * n + 1, 0, "/up"));
            });
            // The bytes between the pieces belong to a stream that is gone, so Weir discards them.
            peer.send(ask(1_001, 0, "/hello"));
            assert!(peer.answer(1_001).is_some());
            let filler = frame(DATA, 0, 1_001, &[0; 16_000]);
            for n in 0..15 * 28 {
                let piece = frame(DATA, 0, 2 * (n % 15 + 1) + 1, &[0; 2_100]);
                peer.send([piece, filler.repeat(4)].concat());
            }
            peer.get(1_003, "/hello");
            assert!(peer.answer(1_003).is_some());
        }
        None
    });
}

#[test]
fn beginnings_that_do_not_go_on() {
    let (endpoint, _) = unanswering_endpoint();
    let weir = server(
        "timeouts = { head = \"500ms\", idle = \"500ms\" }",
        &endpoint,
    );
    let half = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    let after_preface = |rest: &[u8]| {
        let ack = frame(SETTINGS, END, 0, &[]);
        [PREFACE, &settings(&[]), &ack, rest].concat()
    };
    let calm = Some(ENHANCE_YOUR_CALM);
    let cases = [
        (Vec::new(), None),
        (PREFACE[..10].to_vec(), None),
        (PREFACE[..23].to_vec(), None),
        (PREFACE.to_vec(), Some(SETTINGS_TIMEOUT)),
        ([PREFACE, &settings(&[])].concat(), Some(SETTINGS_TIMEOUT)),
        // A request does not excuse the missing SETTINGS acknowledgement.
        (
            [PREFACE, &settings(&[]), &ask(1, END, "/up")].concat(),
            Some(SETTINGS_TIMEOUT),
        ),
        (after_preface(&half(ask(1, END, "/up"))), calm),
        (
            after_preface(&frame(HEADERS, 0, 1, &request("GET", "/up", &[]))),
            calm,
        ),
        (
            after_preface(&half(frame(PING, 0, 0, b"anybody?"))),
            Some(NO_ERROR),
        ),
        (after_preface(&half(settings(&[(4, 1)]))), Some(NO_ERROR)),
        (after_preface(&settings(&[])[..5]), Some(NO_ERROR)),
    ];
    survives(&weir, |weir| {
        let peers = cases.map(|(bytes, expected)| {
            let mut peer = Peer::silent(weir.address);
            peer.send(&bytes);
            (peer, bytes, expected)
        });
        for (mut peer, bytes, expected) in peers {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            match expected {
                // What is not HTTP/2 yet may get an HTTP/1.1 answer.
                None => peer.until_end(),
                code => assert_eq!(peer.end(), code, "{shown:?}"),
            }
        }
        None
    });
}

#[test]
fn a_beginning_in_pieces_is_one() {
    let (endpoint, _) = unanswering_endpoint();
    let weir = server("", &endpoint);
    for cut in 1..PREFACE.len() {
        let mut peer = Peer::silent(weir.address);
        peer.send(&PREFACE[..cut]);
        pause();
        peer.send([&PREFACE[cut..], &settings(&[]), &ask(1, END, "/good")].concat());
        assert_eq!(peer.answer(1), Some((true, b"good".to_vec())), "at {cut}");
    }
    // A request that merely starts like the preface is HTTP/1.1.
    let mut client = weir.connect();
    for piece in [
        "P",
        "OST / HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 0\r\n\r\n",
    ] {
        client.send(piece);
        pause();
    }
    assert_eq!(client.response().text(), "hello");
}

/// A Weir whose HTTP/2 endpoint is a second Weir in front of `endpoint`.
fn two_servers(endpoint: &Endpoint) -> (Arc<Weir>, Weir) {
    let back = Weir::start(&format!(
        "access_log = \"off\"\n[upstream.up]\nservers = [{:?}]\n\
         [[route]]\nmatch = \"/up*\"\nto = \"up\"\n\
         [[route]]\nmatch = \"/*\"\nrespond = \"good\"\n",
        endpoint.name
    ));
    let front = Weir::start(&format!(
        "timeouts = {{ body_stall = \"5s\" }}\n[upstream.back]\nservers = [\"h2c://{}\"]\n\
         [[route]]\nmatch = \"/*\"\nto = \"back\"\n",
        back.address
    ));
    (Arc::new(front), back)
}

#[test]
fn answers_that_a_client_does_not_take_hold_back_no_other_clients() {
    let endpoint = endless_endpoint();
    let (front, _back) = two_servers(&endpoint);
    // All requests share one connection to the endpoint and could use up its window many times.
    let mut peer = Peer::with(front.address, &[(4, 0)]);
    (0..90).for_each(|n| peer.get(2 * n + 1, "/up"));
    let mut heads = 0;
    peer.find(|frame| {
        heads += usize::from(frame.kind == HEADERS);
        (heads == 90).then_some(())
    });
    let bystander = Bystander::of(&front);
    (0..10).for_each(|_| bystander.expect_more_answers());
    let up = "weir_endpoint_connections_total{upstream=\"back\",endpoint=";
    let page = front.admin("/metrics").text();
    let made = page.lines().find(|line| line.starts_with(up)).unwrap();
    assert!(made.ends_with(" 1"), "{made}");
}

#[test]
fn clients_that_give_up_end_no_connection_that_others_use() {
    let endpoint = Endpoint::answering(|request| ok(&request.text()));
    let (front, _back) = two_servers(&endpoint);
    let bystander = Bystander::of(&front);
    bystander.expect_more_answers();
    for _ in 0..5 {
        let mut peer = Peer::to(&front);
        for stream in 0..90 {
            peer.get(2 * stream + 1, "/up");
            peer.send(number(RST_STREAM, 2 * stream + 1, 8));
        }
        peer.get(1_001, "/good");
        assert_eq!(peer.answer(1_001), Some((true, b"good".to_vec())));
    }
    bystander.expect_more_answers();
    let page = front.admin("/metrics").text();
    let errors = page
        .lines()
        .filter(|line| line.starts_with("weir_upstream_http2_errors_total{"));
    for line in errors {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn trailers_stay_with_their_request() {
    let endpoint = Endpoint::answering(|request| ok(&format!("{request:?}")));
    let weir = server("", &endpoint);
    let mut peer = Peer::to(&weir);
    for round in 0..20 {
        // A request with trailers that its client resets.
        let (first, second) = (8 * round + 1, 8 * round + 3);
        let trailers = frame(
            HEADERS,
            END | END_HEADERS,
            first,
            &block(&[("x-secret", "of another")]),
        );
        let reset = number(RST_STREAM, first, 8);
        peer.send([ask(first, 0, "/up"), trailers, reset].concat());
        // A request with a body and no trailers.
        let data = frame(DATA, END, second, b"body");
        peer.send([ask(second, 0, "/up"), data].concat());
        let (is_ok, seen) = peer.answer(second).unwrap();
        assert!(is_ok);
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(!seen.contains("secret"), "{seen}");
    }
}

#[test]
fn the_least_urgent_answer_comes_to_its_end_too() {
    let seen = shares([Some("u=0"), Some("u=7")]);
    assert!(seen[1] >= 5, "{seen:?}");
    assert!(seen[0] > 5 * seen[1], "and the urgent one first: {seen:?}");
}

#[test]
fn answers_of_one_urgency_share_if_they_are_of_use_in_parts() {
    let is_even = |seen: [usize; 2]| seen[0].abs_diff(seen[1]) <= 20;
    let whole = shares([Some("u=2"), Some("u=2")]);
    assert!(whole[0] > 5 * whole[1], "in their order: {whole:?}");
    let mixed = shares([Some("u=2, i"), Some("u=2")]);
    assert!(mixed[1] > 5 * mixed[0], "the whole one first: {mixed:?}");
    let parts = shares([Some("u=2, i"), Some("u=2, i")]);
    assert!(is_even(parts), "in turns: {parts:?}");
    let unsaid = shares([None, None]);
    assert!(is_even(unsaid), "who knows of none shares: {unsaid:?}");
}

/// The number of frames that each of two endless answers gets of a hundred, while the client opens the connection's
/// window a little at a time.
fn shares(priorities: [Option<&str>; 2]) -> [usize; 2] {
    let endpoint = endless_endpoint();
    let weir = server("", &endpoint);
    let mut peer = Peer::with(weir.address, &[(4, 0x7fff_ffff)]);
    for (stream, priority) in [1, 3].into_iter().zip(priorities) {
        let fields: Vec<_> = priority
            .map(|value| ("priority", value))
            .into_iter()
            .collect();
        let block = request("GET", "/up", &fields);
        peer.send(frame(HEADERS, END | END_HEADERS, stream, &block));
    }
    let mut taken = 0;
    peer.find(|frame| {
        let is_data = frame.kind == DATA;
        taken += if is_data { frame.payload.len() } else { 0 };
        (taken == 65_535).then_some(())
    });
    // From now on the client opens the window a little at a time, so both answers always have more to send.
    let mut next = || {
        peer.send(number(WINDOW_UPDATE, 0, 1_000));
        let stream = peer.find(|frame| (frame.kind == DATA).then_some(frame.stream));
        stream.unwrap() as usize / 2
    };
    let mut begun = [false; 2];
    while begun != [true; 2] {
        begun[next()] = true;
    }
    let mut seen = [0; 2];
    (0..100).for_each(|_| seen[next()] += 1);
    seen
}

#[test]
fn floods_are_counted_and_logged() {
    let (endpoint, _) = unanswering_endpoint();
    let weir = server("", &endpoint);
    let mut peer = Peer::to(&weir);
    peer.get(1, "/good");
    peer.answer(1);
    peer.send(frame(HEADERS, END | END_HEADERS, 3, &block(&[("a", "b")])));
    peer.send([ask(5, END, "/up"), number(RST_STREAM, 5, 8)].concat());
    // With a running exchange, the client's GOAWAY does not end the connection yet.
    peer.send([ask(7, END, "/up"), frame(GOAWAY, 0, 0, &[0; 8])].concat());
    peer.flood(1_000, |_| frame(PING, 0, 0, b"anybody?"));
    assert_eq!(peer.end(), Some(ENHANCE_YOUR_CALM));
    let line = weir.wait_for(" on 127.0.0.1:0: ");
    assert_eq!(line, "connection ended: too_many_pings");
    let metric = |name: &str, label: &str| {
        weir.metric(&format!(
            "weir_http2_{name}_total{{listener=\"127.0.0.1:0\"{label}}}"
        ))
    };
    assert_eq!(metric("connections", ""), 1.0);
    assert_eq!(metric("requests", ""), 3.0);
    assert_eq!(metric("resets", ""), 1.0);
    assert_eq!(metric("errors", ",error=\"too_many_pings\""), 1.0);
    assert_eq!(metric("stream_errors", ",error=\"missing_pseudo\""), 1.0);
    assert_eq!(metric("goaways", ",by=\"client\""), 1.0);
    assert_eq!(metric("goaways", ",by=\"weir\""), 1.0);
    wait_until_at_rest(&weir);
}

/// Requests whose connection fails before Weir reads them: each has a log line, and none reaches an endpoint.
#[test]
fn requests_that_come_with_the_end_of_their_connection_are_logged() {
    let (endpoint, open) = unanswering_endpoint();
    let weir = server("", &endpoint);
    let mut peer = Peer::to(&weir);
    let paths: Vec<_> = (0..50)
        .flat_map(|n| [format!("/up/{n}"), format!("/hello/{n}")])
        .collect();
    let mut bytes: Vec<u8> = paths
        .iter()
        .zip((1..).step_by(2))
        .flat_map(|(path, stream)| ask(stream, END, path))
        .collect();
    // A stream id that only a server may use.
    bytes.extend(ask(2, END, "/hello"));
    peer.send(bytes);
    assert_eq!(peer.end(), Some(PROTOCOL_ERROR));
    for path in &paths {
        let entry = weir.entry(path);
        assert_eq!(entry.text("reason"), "client_closed", "{path}");
        assert_eq!(entry.number("status"), 499.0, "{path}");
    }
    assert_eq!(open.load(Ordering::SeqCst), 0);
    wait_until_at_rest(&weir);
}
