//! A Weir that terminates TLS, clients of it, and TLS endpoints.
#![allow(unreachable_pub)] // As in the other shared modules.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DEFAULT_VERSIONS, ServerConfig, ServerConnection, Stream,
    StreamOwned, SupportedProtocolVersion, crypto::aws_lc_rs,
};

use crate::e2e::*;

/// A Weir that terminates TLS for `a.test`, in front of an endpoint that answers with the fields that it received.
pub struct Edge {
    pub dir: PathBuf,
    pub ca: Authority,
    pub ca_file: PathBuf,
    // Dropped before the endpoint, which waits for its connections to end.
    pub weir: Weir,
    pub endpoint: Endpoint,
}

impl Edge {
    /// `tls` has further keys of the listener's TLS table, `more` has further text of the file.
    pub fn start(tls: &str, more: &str) -> Self {
        Self::prepared(|_, _| (tls.to_owned(), more.to_owned()))
    }

    pub fn prepared(prepare: impl FnOnce(&Path, &Authority) -> (String, String)) -> Self {
        let (dir, ca) = (Weir::dir(), Authority::new("test authority"));
        let ca_file = ca.write(&dir.join("ca.pem"));
        let (tls, more) = prepare(&dir, &ca);
        let cert = ca.sign(&["a.test", "*.wild.test"]).write(&dir, "a");
        let endpoint = Endpoint::answering(|request| {
            let told = |name| request.field(name).unwrap_or_default().to_owned();
            ok(&format!(
                "{} {} {}",
                told("X-Forwarded-Proto"),
                told("X-Client-Cert-Subject"),
                told("X-Client-Cert-San")
            ))
        });
        let weir = Weir::start_in(
            &dir,
            &format!(
                "[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} {tls} }}\n{more}\n{}",
                route_to(&[&endpoint])
            ),
        );
        Self {
            dir,
            ca,
            ca_file,
            endpoint,
            weir,
        }
    }

    /// Runs curl against it. Returns standard output or the exit code.
    pub fn curl(&self, arguments: &[&str], host: &str, path: &str) -> Result<String, i32> {
        let port = self.weir.address.port();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
            .arg(&self.ca_file)
            .args(["--connect-to", &format!("{host}:443:127.0.0.1:{port}")])
            .args(arguments)
            .arg(format!("https://{host}{path}"))
            .output()
            .expect("curl is installed");
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            code => Err(code.unwrap_or(-1)),
        }
    }

    /// The output of OpenSSL's client for a connection.
    pub fn openssl(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &self.weir.address.to_string()])
            .arg("-CAfile")
            .arg(&self.ca_file)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }

    pub fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        connect(self.weir.address, &self.ca.pem)
    }

    /// Connects with one TLS version only.
    pub fn connect_with(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        self.connect_offering(version, b"http/1.1")
    }

    /// Connects with one ALPN protocol only.
    pub fn connect_offering(
        &self,
        version: &'static SupportedProtocolVersion,
        alpn: &[u8],
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut config = tls_config(&self.ca.pem, &[version]);
        config.alpn_protocols = vec![alpn.to_vec()];
        tls_connect(self.weir.address, Arc::new(config))
    }

    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        eventually(name, || (self.weir.metric(name) >= value).then_some(()));
    }
}

/// Opens a TLS connection to `a.test`.
pub fn connect(address: SocketAddr, ca: &str) -> StreamOwned<ClientConnection, TcpStream> {
    tls_connect(address, Arc::new(client(ca)))
}

pub fn client(ca: &str) -> ClientConfig {
    tls_config(ca, DEFAULT_VERSIONS)
}

pub fn handshakes(version: &str, resumed: &str) -> String {
    format!(
        "weir_tls_handshakes_total{{listener=\"127.0.0.1:0\",version=\"{version}\",resumed=\"{resumed}\"}}"
    )
}

pub fn failures(failure: &str) -> String {
    format!("weir_tls_failures_total{{listener=\"127.0.0.1:0\",failure=\"{failure}\"}}")
}

/// Sends a request and reads its short answer.
#[track_caller]
pub fn ask(stream: &mut (impl Read + Write), path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).expect("an answer");
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend(&bytes[..n]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
    }
}

/// A TLS endpoint with this certificate that follows a script.
pub fn tls_endpoint(
    issued: &Issued,
    alpn: &[&[u8]],
    script: impl Fn(&mut Stream<'_, ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> SocketAddr {
    let mut config = server(issued, None, DEFAULT_VERSIONS);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tls_endpoint_with(config, script)
}

/// A TLS server configuration. It demands client certificates if `clients` is an authority.
pub fn server(
    issued: &Issued,
    clients: Option<&Authority>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = Arc::new(tls_roots(&clients.pem));
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    builder.with_single_cert(chain, key).unwrap()
}

/// A TLS endpoint with this configuration that follows a script.
pub fn tls_endpoint_with(
    config: ServerConfig,
    script: impl Fn(&mut Stream<'_, ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> SocketAddr {
    let (config, script) = (Arc::new(config), Arc::new(script));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().map_while(Result::ok) {
            let (config, script) = (config.clone(), script.clone());
            std::thread::spawn(move || {
                tcp.set_read_timeout(Some(DEADLINE)).unwrap();
                tcp.set_nodelay(true).unwrap();
                let mut tls = ServerConnection::new(config).unwrap();
                script(&mut Stream::new(&mut tls, &mut tcp));
            });
        }
    });
    address
}

/// Reads a request's head. Returns false if the connection ends first.
pub fn read_head(stream: &mut impl Read) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}
