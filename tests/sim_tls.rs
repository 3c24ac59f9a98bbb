//! TLS under random timing, cuts and order: plain clients, a Weir that speaks TLS to a second Weir, and plain
//! endpoints. Every request is answered once, byte for byte.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod sim;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sim::client::{Outcome, ScriptedRequest, ask_all, pipeline};
use sim::{Rig, check};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use weir::io::Net;
use weir::io::sim::{Faults, Peer, World, at};

/// A certificate for the inner Weir. Ed25519 signatures have a fixed length, so a seed reproduces all sizes.
fn certificate() -> &'static str {
    static MADE: OnceLock<String> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sim-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(["inner.test".to_owned()]).unwrap();
        let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        format!("cert = {cert_file:?}, key = {key_file:?}")
    })
}

/// Between the two, every other world uses HTTP/2. The others use HTTP/1.1 with a PROXY header, which keeps connections
/// from being shared.
fn speaks_http2(world: &World) -> bool {
    world.seed().is_multiple_of(2)
}

fn outer(world: &World) -> String {
    let cert = certificate().split('"').nth(1).unwrap();
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
        certificate()
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

/// A ClientHello.
fn hello() -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("inner.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
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
