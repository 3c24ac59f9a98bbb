//! hyper over tokio-rustls on both sides of Weir.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;

use e2e::*;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let task = tokio::time::timeout(4 * DEADLINE, task);
        task.await.expect("in time")
    })
}

/// An echo server that lives as long as the process.
fn server(issued: &Issued) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (tell, told) = channel();
    std::thread::spawn(move || {
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                spawn_local(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(echo);
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    told.recv_timeout(DEADLINE).unwrap()
}

async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, hyper::Error> {
    Ok(Response::new(request.into_body()))
}

#[test]
fn bodies_of_all_sizes_are_whole_over_tls_on_both_sides() {
    let (dir, ca) = (Weir::dir(), Authority::new("test"));
    let ca_file = ca.write(&dir.join("ca.pem"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let endpoint = server(&ca.sign(&["endpoint.test"]));
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n\
             [upstream.up]\nservers = [\"https://{endpoint}\"]\ntls = {{ ca = {ca_file:?} }}\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n"
        ),
    );
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (connector, address) = (TlsConnector::from(Arc::new(config)), weir.address);
    run(async {
        let mut tasks = Vec::new();
        for task in 0..4_usize {
            let connector = connector.clone();
            tasks.push(spawn_local(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let name = ServerName::try_from("a.test").unwrap();
                let stream = connector.connect(name, stream).await.unwrap();
                let io = TokioIo::new(stream);
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(io).await.unwrap();
                spawn_local(connection);
                for n in 0..20_usize {
                    let sizes = [0, 1, 100, 4_096, 16_384, 16_385, 70_000, 300_000, 2_000_000];
                    let body: Bytes = (0..sizes[(task + n) % sizes.len()])
                        .map(|i| ((i * 7 + n) % 251) as u8)
                        .collect();
                    let request = Request::post("/").header("Host", "a.test");
                    let request = request.body(Full::new(body.clone())).unwrap();
                    let answer = sender.send_request(request).await.unwrap();
                    let got: Result<_, hyper::Error> = answer.into_body().collect().await;
                    assert!(got.unwrap().to_bytes() == body, "{} bytes", body.len());
                    sender.ready().await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        Ok::<_, Infallible>(())
    })
    .unwrap();
    assert_eq!(
        weir.metric("weir_exchanges_total{listener=\"127.0.0.1:0\",class=\"2xx\"}"),
        80.0
    );
}
