//! TLS under random timing, cuts and order: plain clients, a Weir that speaks TLS to a second Weir, and plain
//! endpoints. Every request is answered once, byte for byte.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "sim/certificate.rs"]
mod certificate;
mod sim;

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use certificate::certificate;
use sim::client::{Outcome, ScriptedRequest, ask_all, pipeline};
use sim::{Rig, check};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use weir::io::Net;
use weir::io::sim::{Faults, Peer, World, at};

/// Between the two, every other world uses HTTP/2. The others use HTTP/1.1 with a PROXY header, which keeps connections
/// from being shared.
fn speaks_http2(world: &World) -> bool {
    world.seed().is_multiple_of(2)
}

fn outer(world: &World) -> String {
    let cert = &certificate().cert;
    let proxy = if speaks_http2(world) {
        ""
    } else {
        "proxy_protocol = \"v2\"\n"
    };
    format!(
        "[listen.\"10.1.0.1:80\"]\n[upstream.inner]\nservers = [\"https://10.3.0.1:443\"]\n\
         tls = {{ ca = \"{cert}\", server_name = \"inner.test\" }}\n{proxy}\
         [[route]]\nmatch = \"/*\"\nto = \"inner\"\n"
    )
}

fn inner(world: &World) -> String {
    let proxy = if speaks_http2(world) {
        ""
    } else {
        "proxy_protocol = [\"0.0.0.0/0\"]\n"
    };
    format!(
        "[listen.\"10.3.0.1:443\"]\ntls = {{ {} }}\n{proxy}\
         [upstream]\napp = [\"10.2.0.1:8080\"]\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n",
        certificate().settings()
    )
}

#[test]
fn every_request_over_tls_is_answered_once_and_unchanged() {
    check(100, |world| run(world, false));
}

#[test]
fn pipelined_requests_over_tls_are_answered_in_order() {
    check(100, |world| run(world, true));
}

#[test]
fn a_hello_is_one_wherever_it_is_cut_behind_a_header_of_the_proxy_protocol() {
    // Any byte may begin the second part of a hello, even the first of an HTTP method.
    let cuts = |hello: &[u8]| {
        (1..hello.len())
            .filter(|&at| hello[at].is_ascii_uppercase())
            .collect()
    };
    check(2, |world| {
        if speaks_http2(world) {
            return;
        }
        // This world delivers each send as one receive, so the cut stays where the test makes it.
        world.set_faults(|faults| *faults = Faults::none());
        let inner = Rig::start(world, 1, &inner(world));
        let hello = hello();
        let cuts: Vec<usize> = cuts(&hello);
        assert!(!cuts.is_empty(), "no cut to try in {hello:?}");
        for cut in cuts {
            let (net, hello) = (world.client(), hello.clone());
            let first = world.run(async move {
                let mut peer = Peer::connect(&net, &at("10.3.0.1:443")).await.unwrap();
                let before = [b"PROXY UNKNOWN\r\n", &hello[..cut]].concat();
                peer.send(&before).await.unwrap();
                net.sleep_until(net.now() + Duration::from_millis(20)).await;
                peer.send(&hello[cut..]).await.unwrap();
                peer.read_exact(1).await.unwrap()
            });
            assert_eq!(first, [22], "a handshake goes on, cut at {cut}");
        }
        inner.drain(Duration::ZERO);
    });
}

/// Each send costs a system call and wakes the client. A client that resumes a session gets one ticket for the one that
/// it has used.
#[test]
fn tickets_and_the_close_leave_with_the_answer() {
    check(2, |world| {
        world.set_faults(|faults| *faults = Faults::none());
        let config = format!(
            "[listen.\"10.3.0.1:443\"]\ntls = {{ {} }}\n[upstream]\napp = [\"10.2.0.1:8080\"]\n\
             [[route]]\nmatch = \"/*\"\nto = \"app\"\n",
            certificate().settings()
        );
        let weir = Rig::start(world, 1, &config);
        let _endpoint = world.endpoint(&at("10.2.0.1:8080"), async |mut peer: Peer<_>| {
            while peer.read_until(b"\r\n\r\n").await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
                peer.send(answer).await.unwrap();
            }
        });
        let (net, config) = (world.client(), client_config());
        world.run(async move {
            for (kind, tickets) in [(HandshakeKind::Full, 2), (HandshakeKind::Resumed, 1)] {
                let peer = Peer::connect(&net, &at("10.3.0.1:443")).await.unwrap();
                let (client, receives) = ask_once(&config, peer).await;
                assert_eq!(
                    receives, 2,
                    "the server's half of the handshake, then all the rest"
                );
                assert_eq!(client.handshake_kind(), Some(kind));
                assert_eq!(client.tls13_tickets_received(), tickets);
            }
        });
        weir.drain(Duration::ZERO);
    });
}

/// Makes a request that is the last of its connection. Returns the client after the server's close, and how often it
/// has received.
async fn ask_once(
    config: &Arc<ClientConfig>,
    mut peer: Peer<impl Net>,
) -> (ClientConnection, usize) {
    let mut client = client(config);
    let request = b"GET / HTTP/1.1\r\nHost: inner.test\r\nConnection: close\r\n\r\n";
    client.writer().write_all(request).unwrap();
    let (mut receives, mut has_ended, mut answer) = (0, false, Vec::new());
    loop {
        let sent = output(&mut client);
        if !sent.is_empty() && !has_ended {
            peer.send(&sent).await.unwrap();
        }
        let Some(received) = peer.recv().await.unwrap() else {
            assert!(answer.ends_with(b"hello") && has_ended);
            return (client, receives);
        };
        receives += 1;
        let mut left = received.as_slice();
        while !left.is_empty() {
            client.read_tls(&mut left).unwrap();
            has_ended = client.process_new_packets().unwrap().peer_has_closed();
        }
        let _ = client.reader().read_to_end(&mut answer);
    }
}

/// A ClientHello.
fn hello() -> Vec<u8> {
    output(&mut client(&client_config()))
}

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from(certificate::NAME).unwrap();
    ClientConnection::new(config.clone(), name).unwrap()
}

/// The settings of a client that trusts the inner Weir.
fn client_config() -> Arc<ClientConfig> {
    let cert = &certificate().cert;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(cert).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// What a client has to send.
fn output(client: &mut ClientConnection) -> Vec<u8> {
    let mut sent = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sent).unwrap();
    }
    sent
}

fn run(world: &World, pipelined: bool) {
    let inner = Rig::start_from(world, 1, 1, &inner(world));
    let outer = Rig::start(world, 1, &outer(world));
    inner.ledger.endpoint(world, "10.2.0.1:8080");
    let mut rng = world.rng(1);
    let left = Rc::new(Cell::new(0));
    let mut all = Vec::new();
    for client in 0..rng.between(1, 4) as u64 {
        let ids = (client * 100..).take(rng.between(1, 5));
        let asks: Vec<_> = ids
            .map(|id| ScriptedRequest::random(id, &mut rng))
            .collect();
        all.extend(asks.iter().cloned());
        let (net, left, mut rng) = (world.client(), left.clone(), rng.fork());
        left.set(left.get() + 1);
        world.spawn(async move {
            let to = at("10.1.0.1:80");
            let outcomes = match pipelined {
                true => pipeline(&net, &to, &asks, &mut rng).await,
                false => ask_all(&net, &to, &asks, &mut rng).await,
            };
            assert_eq!(outcomes.len(), asks.len());
            for (outcome, ask) in outcomes.iter().zip(&asks) {
                let answered = matches!(outcome, Outcome::Answered);
                assert!(answered, "{outcome:?} to {ask:?}");
            }
            left.set(left.get() - 1);
        });
    }
    outer.run_until_zero(&left);
    for ask in &all {
        assert_eq!(inner.ledger.count(ask.id), 1, "{ask:?}");
    }
    outer.drain(Duration::from_secs(30));
    inner.drain(Duration::from_secs(30));
}
