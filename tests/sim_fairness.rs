//! Peers whose next input is always ready: a core processes a bounded part of it and then serves other tasks.
//!
//! In these worlds every receive and send completes at once, so only the core's own bounds end a turn.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "sim/certificate.rs"]
mod certificate;
mod sim;

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use certificate::certificate;
use sim::message::Head;
use sim::{Rig, check};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use weir::io::sim::{Faults, Peer, Sim, World, at};
use weir::limits::{EXCHANGE_STEPS, RECORDS_AT_ONCE_MAX, SHARE_STEPS};

const CONFIG: &str = r#"
[listen."10.1.0.1:80"]
[limits]
body_rate = "off"
[upstream]
app = "10.2.0.1:8080"
[[route]]
match = "/fixed"
respond = { status = 200, body = "here" }
[[route]]
match = "/old"
redirect = "https://elsewhere.test/"
[[route]]
match = "/app"
to = "app"
"#;

const FRONT: &str = "10.1.0.1:80";
const ENDPOINT: &str = "10.2.0.1:8080";

/// Requests that each pipelining client sends at once.
const PIPELINED: usize = 1_000;

fn at_once(world: &World) {
    world.set_faults(|faults| {
        *faults = Faults {
            send_buffer_bytes: 1 << 20,
            receive_buffer_bytes: 1 << 20,
            ..Faults::none()
        }
    });
}

/// Answers every request at once.
fn quick_endpoint(world: &World) {
    world.endpoint(&at(ENDPOINT), |mut peer| async move {
        while Head::read(&mut peer).await.is_some() {
            let sent = peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere");
            if sent.await.is_err() {
                return;
            }
        }
    });
}

/// Sends all requests at once and counts the answers up to `count`.
async fn pipeline(net: Sim, request: String, count: usize) {
    let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
    peer.write(request.repeat(count).as_bytes());
    for n in 0..count {
        let head = Head::read(&mut peer).await;
        let head = head.unwrap_or_else(|| panic!("{n} of {count} answers"));
        let len = head
            .get("content-length")
            .map_or(0, |len| len.parse().unwrap());
        peer.read_exact(len).await.unwrap();
    }
}

#[test]
fn pipelining_clients_leave_other_clients_their_turn() {
    let requests = [
        "GET /nowhere HTTP/1.1\r\nHost: sim\r\n\r\n",
        "GET /old HTTP/1.1\r\nHost: sim\r\n\r\n",
        "GET /fixed HTTP/1.1\r\nHost: sim\r\n\r\n",
        "POST /fixed HTTP/1.1\r\nHost: sim\r\nContent-Length: 4\r\n\r\nbody",
        "POST /fixed HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "GET /app HTTP/1.1\r\nHost: sim\r\n\r\n",
    ];
    for request in requests {
        check(2, |world| {
            at_once(world);
            let rig = Rig::start(world, 1, CONFIG);
            quick_endpoint(world);
            let left = Rc::new(Cell::new(8));
            for _ in 0..8 {
                let (net, left) = (world.client(), left.clone());
                world.spawn(async move {
                    pipeline(net, request.to_owned(), PIPELINED).await;
                    left.set(left.get() - 1);
                });
            }
            world.run_until(|| left.get() == 0);
            // Each exchange receives and sends at most once, and so does its endpoint's connection.
            let most = SHARE_STEPS / EXCHANGE_STEPS * 4;
            assert!(
                world.most_begun() <= most,
                "{} receives and sends in one turn for {request:?}",
                world.most_begun()
            );
            rig.drain(Duration::from_secs(1));
        });
    }
}

/// The number of turns of the core's tasks while `main` runs.
fn turns_of(world: &World, main: impl Future<Output = ()> + 'static) -> u64 {
    let before = world.turns();
    world.run(main);
    world.turns() - before
}

#[test]
fn bodies_in_tiny_pieces_leave_other_clients_their_turn() {
    const PIECES: usize = 20_000;
    for (path, is_answer) in [("/fixed", false), ("/app", false), ("/app", true)] {
        check(2, |world| {
            at_once(world);
            let rig = Rig::start(world, 1, CONFIG);
            let body = move |is_there: bool| match is_there {
                true => "1\r\nx\r\n".repeat(PIECES) + "0\r\n\r\n",
                false => "0\r\n\r\n".to_owned(),
            };
            world.endpoint(&at(ENDPOINT), move |mut peer| async move {
                let _ = Head::read(&mut peer).await;
                if !is_answer {
                    let mut got = 0;
                    while got < PIECES {
                        got += peer.recv().await.unwrap().unwrap().len();
                    }
                }
                let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
                peer.send((answer + &body(is_answer)).as_bytes())
                    .await
                    .unwrap();
                let _ = peer.read_to_end().await;
            });
            let net = world.client();
            let turns = turns_of(world, async move {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                peer.write((head + &body(!is_answer)).as_bytes());
                let head = Head::read(&mut peer).await.unwrap();
                assert!(head.line.contains(" 200 "), "{}", head.line);
                if is_answer {
                    peer.read_exact(PIECES * 6).await.unwrap();
                } else if path == "/fixed" {
                    // Weir reads the part of the body for which the answer did not wait before the next request.
                    peer.read_exact(4).await.unwrap();
                    peer.write(b"GET /fixed HTTP/1.1\r\nHost: sim\r\n\r\n");
                    assert!(Head::read(&mut peer).await.is_some());
                }
            });
            let least = PIECES as u64 / u64::from(SHARE_STEPS);
            assert!(turns >= least, "{turns} turns for {PIECES} pieces, {path}");
            rig.drain(Duration::from_secs(1));
        });
    }
}

/// Encodes an HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn ignored_frames_leave_other_clients_their_turn() {
    const FRAMES: usize = 20_000;
    const PING: &[u8] = b"last one";
    let late = [
        ("data", frame(0, 0, 1, b"x")),
        ("padded data", frame(0, 8, 1, &[1, b'x', 0])),
        ("window updates", frame(8, 0, 1, &[0, 0, 0, 1])),
    ];
    for (what, late) in late {
        // As many frames as the flood limits allow.
        let count = if what == "window updates" {
            900
        } else {
            FRAMES
        };
        check(2, |world| {
            at_once(world);
            let rig = Rig::start(world, 1, CONFIG);
            let (net, late) = (world.client(), late.clone());
            let turns = turns_of(world, async move {
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                // POST, http, a path and an authority: its body goes on when it is answered.
                let head = b"\x83\x86\x04\x06/fixed\x01\x03sim";
                peer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                peer.write(&[frame(4, 0, 0, b""), frame(1, 4, 1, head)].concat());
                let hears = async |peer: &mut Peer<Sim>, text: &[u8]| {
                    let mut heard = Vec::new();
                    while !heard.windows(text.len()).any(|part| part == text) {
                        let chunk = peer.recv().await.unwrap();
                        heard.extend_from_slice(&chunk.expect("the connection lasts"));
                    }
                };
                // RST_STREAM with NO_ERROR.
                hears(&mut peer, &frame(3, 0, 1, &[0; 4])).await;
                peer.write(&late.repeat(count));
                peer.write(&frame(6, 0, 0, PING));
                hears(&mut peer, PING).await;
            });
            let least = count as u64 / u64::from(SHARE_STEPS);
            assert!(turns >= least, "{turns} turns for {count} {what}");
            rig.drain(Duration::from_secs(1));
        });
    }
}

/// A TLS client that makes a record of every write.
fn tls_client() -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(&certificate().cert).unwrap();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(certificate::NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    client.set_buffer_limit(None);
    client
}

/// Exchanges pending TLS bytes with the other side once.
async fn go_on(client: &mut ClientConnection, peer: &mut Peer<Sim>) {
    let mut out = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut out).unwrap();
    }
    peer.send(&out).await.unwrap();
    let chunk = peer.recv().await.unwrap().expect("more");
    let mut bytes = &chunk[..];
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
    }
}

#[test]
fn one_byte_tls_records_leave_other_clients_their_turn() {
    let keys = certificate().settings();
    let tls = format!("[listen.\"10.1.0.1:80\"]\ntls = {{ {keys} }}\n");
    let config = CONFIG.replace("[listen.\"10.1.0.1:80\"]\n", &tls);
    let field = format!("X-Long: {}\r\n", "x".repeat(8_000));
    let heads = [
        format!("GET /fixed HTTP/1.1\r\nHost: sim\r\n{field}\r\n"),
        format!(
            "POST /app HTTP/1.1\r\nHost: sim\r\nContent-Length: 8000\r\n\r\n{}",
            "x".repeat(8_000)
        ),
    ];
    for request in heads {
        check(2, |world| {
            at_once(world);
            let rig = Rig::start(world, 1, &config);
            world.endpoint(&at(ENDPOINT), |mut peer| async move {
                let _ = Head::read(&mut peer).await;
                let _ = peer.read_exact(8_000).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                peer.send(answer).await.unwrap();
                let _ = peer.read_to_end().await;
            });
            let (net, request) = (world.client(), request.clone());
            let records = request.len() as u64;
            let turns = turns_of(world, async move {
                let mut client = tls_client();
                let mut peer = Peer::connect(&net, &at(FRONT)).await.unwrap();
                while client.is_handshaking() {
                    go_on(&mut client, &mut peer).await;
                }
                for byte in request.as_bytes() {
                    client.writer().write_all(&[*byte]).unwrap();
                }
                let mut answer = [0; 12];
                loop {
                    go_on(&mut client, &mut peer).await;
                    if client.reader().read(&mut answer).is_ok() {
                        break;
                    }
                }
                assert_eq!(&answer, b"HTTP/1.1 200");
            });
            let least = records / RECORDS_AT_ONCE_MAX as u64;
            assert!(turns >= least, "{turns} turns for {records} records");
            rig.drain(Duration::from_secs(1));
        });
    }
}
