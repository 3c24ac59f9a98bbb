//! An issuer of tokens, on hyper.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::Issued;

/// A key that signs tokens with ES256.
pub struct TokenKey {
    id: String,
    pair: KeyPair,
}

/// A running issuer. Dropping it closes its port.
pub struct Issuer {
    pub address: SocketAddr,
    documents: Arc<Mutex<Documents>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What an issuer publishes.
pub struct Documents {
    pub discovery: String,
    pub keys: String,
    pub status: u16,
    /// The Cache-Control of the keys.
    pub cache_control: Option<&'static str>,
    /// How often each document was fetched: the discovery document, the keys.
    pub fetches: [usize; 2],
}

impl TokenKey {
    pub fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self {
            id: id.to_owned(),
            pair,
        }
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> String {
        let (x, y) = self.pair.public_key_raw()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let id = &self.id;
        format!(
            "{{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"{id}\",\"use\":\"sig\",\"x\":\"{x}\",\"y\":\"{y}\"}}"
        )
    }

    /// The public key in PEM.
    pub fn pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// A token with these claims, as JSON.
    pub fn sign(&self, claims: &str) -> String {
        let header = format!("{{\"alg\":\"ES256\",\"kid\":\"{}\"}}", self.id);
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        let signature = crypto::sign(text.as_bytes(), &key, Algorithm::ES256).unwrap();
        format!("{text}.{signature}")
    }

    /// A token of `issuer` for `api` that is valid for ten minutes, with more claims.
    pub fn token(&self, issuer: &str, more: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let comma = if more.is_empty() { "" } else { "," };
        self.sign(&format!(
            "{{\"iss\":\"{issuer}\",\"aud\":\"api\",\"exp\":{}{comma}{more}}}",
            now + 600
        ))
    }
}

impl Issuer {
    /// An issuer with this key, in the clear, on a free port.
    pub fn start(key: &TokenKey) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), key, None)
    }

    /// An issuer at this address, over TLS if there is a certificate.
    pub fn start_at(address: SocketAddr, key: &TokenKey, certificate: Option<&Issued>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{address}/");
        let documents = Arc::new(Mutex::new(Documents {
            discovery: format!(
                "{{\"issuer\":\"{url}\",\"jwks_uri\":\"{url}keys\",\"id_token_signing_alg_values_supported\":[\"ES256\"]}}"
            ),
            keys: key_set(&[key]),
            status: 200,
            cache_control: None,
            fetches: [0; 2],
        }));
        let tls = certificate.map(acceptor);
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = documents.clone();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, tls, shared) => {}
                }
            });
        };
        Self {
            address,
            documents,
            stop: Some(stop),
            thread: Some(std::thread::spawn(serve)),
        }
    }

    /// Its name, and its URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What it publishes.
    pub fn documents(&self) -> MutexGuard<'_, Documents> {
        self.documents.lock().unwrap()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The set of these keys.
pub fn key_set(keys: &[&TokenKey]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    format!("{{\"keys\":[{}]}}", keys.join(","))
}

async fn accept(
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    documents: Arc<Mutex<Documents>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, documents) = (tls.clone(), documents.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = documents.lock().unwrap().answer(request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::task::spawn_local(async move {
            match tls {
                None => drop(
                    http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                ),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(
                            http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service)
                                .await,
                        );
                    }
                }
            }
        });
    }
}

impl Documents {
    fn answer(&mut self, path: &str) -> Response<Full<Bytes>> {
        let (status, body) = match path {
            "/.well-known/openid-configuration" => {
                self.fetches[0] += 1;
                (self.status, self.discovery.clone())
            }
            "/keys" => {
                self.fetches[1] += 1;
                (self.status, self.keys.clone())
            }
            _ => (404, String::new()),
        };
        let mut answer = Response::builder().status(status);
        if status == 302 {
            answer = answer.header("location", "/keys");
        }
        if let Some(value) = self.cache_control {
            answer = answer.header("cache-control", value);
        }
        answer.body(Full::from(body)).unwrap()
    }
}

fn acceptor(certificate: &Issued) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
