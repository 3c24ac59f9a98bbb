//! TLS 1.3 handshakes: a client connects to a simulated core, shakes hands, sends one request over the
//! new connection, reads the response and leaves.
//!
//! The figures include the client's half of the cryptography. So each case has a base: the same
//! client and a bare rustls server, which answers by itself. The difference is what Weir adds to the
//! server's half: the connection, the exchange with the endpoint, and its settings of TLS.

use std::fs;
use std::io::{self, Write as _};
use std::sync::Arc;

use rustls::ConnectionCommon;
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ServerConfig, ServerConnection};
use weir::io::sim::{Peer, Sim, World, at};
use weir::plan::{EndpointSets, Plan};
use weir::tls::TicketKeys;
use weir_benches::tls::AnyCertificate;

use crate::Case;
use crate::exchange::{
    ENDPOINT, LISTENER, ROUTES, SMALL, is_end, recv, response, serve, start_core, with_client,
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "handshake-full",
        run: |times| handshakes(Server::Weir, Kind::Full, times),
        base: Some("handshake-full-bare"),
    },
    Case {
        name: "handshake-full-bare",
        run: |times| handshakes(Server::Bare, Kind::Full, times),
        base: None,
    },
    Case {
        name: "handshake-resumed",
        run: |times| handshakes(Server::Weir, Kind::Resumed, times),
        base: Some("handshake-resumed-bare"),
    },
    Case {
        name: "handshake-resumed-bare",
        run: |times| handshakes(Server::Bare, Kind::Resumed, times),
        base: None,
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Resumed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Weir,
    /// rustls alone.
    Bare,
}

/// A self-signed certificate of the usual kind and its key, PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let params = rcgen::CertificateParams::new(["shop.example.com".to_owned()]);
        let certificate = params.expect("a name").self_signed(&key);
        Self {
            certificate: certificate.expect("a certificate").pem(),
            key: key.serialize_pem(),
        }
    }
}

/// Makes `times` connections with one request each.
fn handshakes(server: Server, kind: Kind, times: u64) {
    let identity = Identity::new();
    let start = |world: &World| match server {
        Server::Weir => start_weir(world, &identity),
        Server::Bare => {
            let config = server_config(&identity);
            world.endpoint(&at(LISTENER), move |peer| serve_tls(config.clone(), peer));
        }
    };
    let config = client_config(kind);
    with_client(start, serve, async move |net| {
        for _ in 0..times {
            let peer = Peer::connect(&net, &at(LISTENER)).await;
            ask(&config, peer.expect("the server listens")).await;
        }
    });
}

fn client_config(kind: Kind) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.expect("a version").dangerous();
    let verifier = builder.with_custom_certificate_verifier(Arc::new(AnyCertificate));
    let mut config = verifier.with_no_client_auth();
    if kind == Kind::Full {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// Shakes hands and makes one request.
async fn ask(config: &Arc<ClientConfig>, mut peer: Peer<Sim>) {
    let name = ServerName::try_from("shop.example.com").expect("a name");
    let mut client = ClientConnection::new(config.clone(), name).expect("a client");
    client.writer().write_all(SMALL).expect("rustls keeps it");
    loop {
        let sent = take_output(&mut client);
        if !sent.is_empty() {
            peer.send(&sent).await.expect("the connection stays open");
        }
        let read = recv(&mut peer).await.expect("bytes of the server");
        let mut left = read.as_slice();
        while !left.is_empty() {
            client.read_tls(&mut left).expect("a slice gives all");
            client.process_new_packets().expect("a good server");
        }
        let mut opened = Vec::new();
        let _ = io::copy(&mut client.reader(), &mut opened);
        if is_end(&opened) {
            return;
        }
    }
}

/// Starts a core of Weir.
fn start_weir(world: &World, identity: &Identity) {
    let dir = std::env::temp_dir().join(format!("weir-count-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert, &identity.certificate).expect("a file");
    fs::write(&key, &identity.key).expect("a file");
    let file = format!(
        "[listen.\"{LISTENER}\"]\ntls = {{ cert = {cert:?}, key = {key:?} }}\n\
         [upstream]\napp = [\"{ENDPOINT}\"]\n{ROUTES}"
    );
    let (config, _) = weir_config::parse("edge.toml", &file).expect("a good file");
    let mut plan = Plan::compile(&config).expect("a good plan");
    let loaded = weir::tls::load(&config, Some(&TicketKeys::default()), "edge.toml");
    plan.equip(&loaded.expect("good files").0);
    fs::remove_dir_all(&dir).expect("the directory is ours");
    let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new()));
    start_core(world, plan, endpoints.expect("good endpoints"));
}

/// The settings of a server that is rustls alone.
fn server_config(identity: &Identity) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.expect("a version").with_no_client_auth();
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    let chain = vec![certificate.expect("a certificate")];
    let config = builder.with_single_cert(chain, key.expect("a key"));
    let mut config = config.expect("they fit");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().expect("random numbers");
    Arc::new(config)
}

/// Shakes hands and answers every request.
async fn serve_tls(config: Arc<ServerConfig>, mut peer: Peer<Sim>) {
    let mut server = ServerConnection::new(config).expect("a server");
    let response = response();
    while let Some(read) = recv(&mut peer).await {
        let mut left = read.as_slice();
        while !left.is_empty() {
            server.read_tls(&mut left).expect("a slice gives all");
            server.process_new_packets().expect("a good client");
        }
        let mut opened = Vec::new();
        let _ = io::copy(&mut server.reader(), &mut opened);
        if opened.ends_with(b"\r\n\r\n") {
            server
                .writer()
                .write_all(&response)
                .expect("rustls keeps it");
        }
        if peer.send(&take_output(&mut server)).await.is_err() {
            return;
        }
    }
}

/// What a connection of rustls has to send.
fn take_output<T>(connection: &mut ConnectionCommon<T>) -> Vec<u8> {
    let mut sent = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut sent).expect("a vector takes all");
    }
    sent
}
