//! Random bytes and concurrent events: Weir survives both.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::*;
use rustix::process::Signal;

/// Requests that noise starts from.
const REQUESTS: [&str; 6] = [
    "GET /a?b=c HTTP/1.1\r\nHost: weir.test\r\nConnection: keep-alive\r\n\r\n",
    "POST /p HTTP/1.1\r\nHost: weir.test\r\nContent-Length: 10\r\n\r\n0123456789",
    "PUT /c HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "GET http://weir.test/x HTTP/1.1\r\nHost: weir.test\r\nConnection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
    "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\nX-Forwarded-For: 1.2.3.4, ::1\r\nVia: 1.1 x\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: weir.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
];

/// Answers that noise starts from.
const ANSWERS: [&str; 6] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-y\r\nX-Y: 1\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
    "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
];

/// Joins some of `texts` and changes, drops or doubles a few bytes.
fn noise(random: &mut fastrand::Rng, texts: &[&str]) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..random.usize(1..4))
        .flat_map(|_| random.choice(texts).unwrap().bytes())
        .collect();
    for _ in 0..random.usize(0..4) {
        let at = random.usize(0..bytes.len());
        match random.u8(0..4) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] = *random.choice(b"\r\n :,;0aZ/%\0").unwrap(),
            2 => drop(bytes.remove(at)),
            _ => bytes.insert(at, bytes[at]),
        }
    }
    if random.u8(0..4) == 0 {
        bytes.truncate(random.usize(1..=bytes.len()));
    }
    bytes
}

#[test]
fn noise_from_both_sides_takes_nothing_down() {
    let endpoint = Endpoint::numbered(|conn, number| {
        let mut random = fastrand::Rng::with_seed(number as u64);
        if random.u8(0..8) > 0 && conn.wait_for_bytes() {
            let _ = conn.try_send(noise(&mut random, &ANSWERS));
        }
        match random.u8(0..4) {
            0 => conn.reset_now(),
            _ => conn.finish(),
        }
    });
    let calm = Endpoint::answering(|_| ok("calm"));
    let weir = Weir::start(&format!(
        "timeouts = {{ head = \"300ms\", idle = \"300ms\", body_stall = \"100ms\" }}\n\
         [upstream]\nnoisy = {{ servers = [{:?}], timeouts = {{ first_byte = \"100ms\" }} }}\ncalm = [{:?}]\n\
         [[route]]\nmatch = \"/calm\"\nto = \"calm\"\n[[route]]\nmatch = \"/*\"\nto = \"noisy\"\n",
        endpoint.name, calm.name
    ));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let weir = &weir;
            scope.spawn(move || {
                for round in 0..40 {
                    let seed = thread * 1_000 + round;
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut client = weir.connect();
                    let size = random.usize(1..200);
                    for piece in noise(&mut random, &REQUESTS).chunks(size) {
                        // Weir may have closed the connection for earlier bytes.
                        let _ = client.try_send(piece);
                    }
                    match random.u8(0..4) {
                        0 => client.reset_now(),
                        1 => {}
                        2 => drop(client.rest()),
                        _ => {
                            client.finish();
                            // Every connection ends: by an answer, a deadline or a close.
                            client.rest();
                        }
                    }
                }
            });
        }
    });
    assert_eq!(weir.ask(get("/calm")).text(), "calm");
    assert_eq!(weir.metric("weir_core_panics_total{core=\"0\"}"), 0.0);
    let internal = "weir_reasons_total{listener=\"127.0.0.1:0\",reason=\"internal\"}";
    assert_eq!(weir.metric(internal), 0.0);
}

#[test]
fn pipelining_without_reading_is_held_back() {
    let endpoint = Endpoint::answering(|_| ok(&"x".repeat(1_000)));
    let weir = Weir::to(&[&endpoint]);
    let idle = weir.resident_bytes();
    let client = Conn::narrow(weir.address);
    let many = get("/again").repeat(1_000);
    let mut sent = 0;
    while sent < 50_000_000 && client.send_while_taken(&many, Duration::from_millis(500)) {
        sent += many.len();
    }
    assert!(sent < 50_000_000, "{sent} bytes of requests were taken");
    let grown = weir.resident_bytes().saturating_sub(idle);
    assert!(grown < 4 << 20, "{grown} bytes for one client");
}

/// Sends requests on one connection after the other until `stop`. Returns the number of correct answers. A connection
/// may end between answers but not within one.
fn ask_until(weir: &Weir, stop: &AtomicBool) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Conn::try_to(weir.address) else {
            continue;
        };
        while !stop.load(Ordering::Relaxed) && client.try_send(get("/load")).is_ok() {
            let Some(response) = client.next_response() else {
                break;
            };
            assert_eq!((response.status(), response.body.len()), (200, 50_000));
            answers += 1;
            if response.field("Connection") == Some("close") {
                break;
            }
        }
    }
    answers
}

#[test]
fn reloads_under_load_lose_nothing() {
    let body = "x".repeat(50_000);
    let endpoints: Vec<_> = (0..2)
        .map(|_| {
            let answer = ok(&body);
            Endpoint::answering(move |_| answer.clone())
        })
        .collect();
    let [one, two] = &endpoints[..] else {
        unreachable!()
    };
    let weir = Weir::with("cores = 2", &[one, two]);
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| ask_until(&weir, &stop)))
            .collect();
        for round in 1..=8 {
            let endpoints = [vec![one, two], vec![one], vec![two, one]];
            let endpoints = &endpoints[round % 3];
            weir.reload(&format!("cores = 2\n{}", route_to(endpoints)));
            eventually("the reload", || {
                (weir.metric("weir_reload_total") == round as f64).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
        let answers: usize = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        assert!(answers > 0);
    });
    let failed = |line: &str| !line.contains("\"status\":200") || !line.contains("\"reason\":null");
    let failed: Vec<_> = weir
        .log
        .so_far()
        .into_iter()
        .filter(|line| failed(line))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_drain_under_load_cuts_no_answer_off() {
    let answer = ok(&"x".repeat(50_000));
    let endpoint = Endpoint::answering(move |_| answer.clone());
    let mut weir = Weir::with("cores = 2", &[&endpoint]);
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| ask_until(&weir, &stop)))
            .collect();
        weir.entry("/load");
        weir.signal(Signal::TERM);
        weir.wait_for("drained");
        stop.store(true, Ordering::Relaxed);
        let answers: usize = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        assert!(answers > 0);
    });
    assert_eq!(weir.wait().code(), Some(0));
    let lines = weir.log.to_end();
    assert!(
        lines.iter().all(|line| line.contains("\"status\":200")),
        "{lines:?}"
    );
}
