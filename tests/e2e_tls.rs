//! TLS with independent peers: curl, OpenSSL's s_client, tokio-rustls and hyper.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::*;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
    StreamOwned, crypto::aws_lc_rs,
};

/// A Weir that terminates TLS for `a.test`, in front of an endpoint that tells what it was told.
struct Edge {
    dir: PathBuf,
    ca: Authority,
    ca_file: PathBuf,
    // Before the endpoint, which waits for its connections to end.
    weir: Weir,
    endpoint: Endpoint,
}

impl Edge {
    /// `tls` are further keys of the listener's table, `more` is further text of the file.
    fn start(tls: &str, more: &str) -> Self {
        Self::prepared(|_, _| (tls.to_owned(), more.to_owned()))
    }

    fn prepared(prepare: impl FnOnce(&Path, &Authority) -> (String, String)) -> Self {
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

    /// Runs curl against it; gives standard output, or the exit code.
    fn curl(&self, arguments: &[&str], host: &str, path: &str) -> Result<String, i32> {
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

    /// What OpenSSL's client says about a connection.
    fn openssl(&self, arguments: &[&str], input: &str) -> String {
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

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        connect(self.weir.address, &self.ca.pem)
    }

    #[track_caller]
    fn wait_for_metric(&self, name: &str, value: f64) {
        eventually(name, || (self.weir.metric(name) >= value).then_some(()));
    }
}

/// A connection to `a.test`.
fn connect(address: SocketAddr, ca: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let tls = ClientConnection::new(Arc::new(client(ca)), name).unwrap();
    StreamOwned::new(tls, tcp)
}

fn client(ca: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn handshakes(version: &str, resumed: &str) -> String {
    format!(
        "weir_tls_handshakes_total{{listener=\"127.0.0.1:0\",version=\"{version}\",resumed=\"{resumed}\"}}"
    )
}

fn failures(failure: &str) -> String {
    format!("weir_tls_failures_total{{listener=\"127.0.0.1:0\",failure=\"{failure}\"}}")
}

#[test]
fn curl_speaks_both_versions_and_requests_are_told_apart_from_plain_ones() {
    let edge = Edge::start("", "");
    assert_eq!(
        edge.curl(&["--tlsv1.2", "--tls-max", "1.2"], "a.test", "/two")
            .unwrap(),
        "https  "
    );
    assert_eq!(
        edge.curl(&["--tlsv1.3"], "a.test", "/three").unwrap(),
        "https  "
    );
    let (two, three) = (edge.weir.entry("/two"), edge.weir.entry("/three"));
    assert_eq!(
        (two.text("tls"), three.text("tls")),
        ("1.2".into(), "1.3".into())
    );
    assert!(two.text("cipher").contains("GCM") && three.text("cipher").starts_with("TLS13_"));
    edge.wait_for_metric(&handshakes("1.2", "no"), 1.0);
    edge.wait_for_metric(&handshakes("1.3", "no"), 1.0);
    // A connection carries several requests, and uploads come whole.
    let upload = "x".repeat(300_000);
    let file = edge.dir.join("upload");
    std::fs::write(&file, &upload).unwrap();
    let data = format!("@{}", file.display());
    edge.curl(&["--data-binary", &data], "a.test", "/up")
        .unwrap();
    let seen = edge.endpoint.seen();
    assert_eq!(seen.last().unwrap().text(), upload);
}

#[test]
fn the_certificate_follows_the_name() {
    let edge = Edge::prepared(|dir, ca| {
        let other = ca.sign(&["other.test"]).write(dir, "other");
        (format!(", certs = [{{ {other} }}]"), String::new())
    });
    let subject = |name: &str| {
        let said = edge.openssl(&["-servername", name], "");
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with("subject="))
            .unwrap();
        line.rsplit('=').next().unwrap().trim().to_owned()
    };
    for (name, expected) in [
        ("a.test", "a.test"),
        ("A.Test", "a.test"),
        ("x.wild.test", "a.test"),
        ("other.test", "other.test"),
        ("unknown.test", "a.test"),
        ("x.y.wild.test", "a.test"),
    ] {
        assert_eq!(subject(name), expected, "{name}");
    }
    assert!(edge.openssl(&["-noservername"], "").contains("CN = a.test"));
    // A name that only one certificate has is verified by clients, and others are refused by them.
    assert!(edge.curl(&[], "other.test", "/").is_ok());
    assert_eq!(edge.curl(&[], "unknown.test", "/"), Err(60));
}

/// Has OpenSSL make a key, as these arguments say, and a certificate for `host`, that signs itself; both are files of
/// this name in `dir`. Gives what the configuration says of them.
fn generate(dir: &Path, file: &str, host: &str, arguments: &str) -> String {
    let (cert, key) = (
        dir.join(format!("{file}.pem")),
        dir.join(format!("{file}.key")),
    );
    let (command, arguments) = arguments.split_once(' ').unwrap();
    let status = Command::new("openssl")
        .args([command, "-out"])
        .arg(&key)
        .args(arguments.split(' '))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{file}");
    let status = Command::new("openssl")
        .args("req -x509 -days 90 -addext basicConstraints=critical,CA:FALSE".split(' '))
        .args(["-subj", &format!("/CN={host}"), "-addext"])
        .arg(format!("subjectAltName=DNS:{host}"))
        .arg("-key")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{file}");
    format!("{{ cert = {cert:?}, key = {key:?} }}")
}

const ECDSA: &str = "ecparam -name prime256v1 -genkey -noout";

#[test]
fn keys_of_every_kind_and_form() {
    let dir = Weir::dir();
    let kinds = [
        (
            "rsa8.test",
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        ),
        ("rsa1.test", "genrsa -traditional 2048"),
        ("sec1.test", ECDSA),
        (
            "p384.test",
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        ),
        ("ed25519.test", "genpkey -algorithm ED25519"),
    ];
    let certs: Vec<_> = kinds
        .iter()
        .map(|(name, how)| generate(&dir, name, name, how))
        .collect();
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\ntls = [{}]\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n",
            certs.join(", ")
        ),
    );
    for (name, _) in kinds {
        for version in ["1.2", "1.3"] {
            let output = Command::new("curl")
                .args(["-sS", "--cacert"])
                .arg(dir.join(format!("{name}.pem")))
                .args([
                    &format!("--tlsv{version}"),
                    "--tls-max",
                    version,
                    "--connect-to",
                ])
                .arg(format!("{name}:443:{}", weir.address))
                .arg(format!("https://{name}/"))
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.stdout, b"hello", "{name} {version}: {error}");
        }
    }
}

/// What OpenSSL's client says about a connection to a listener whose certificates it does not verify.
fn openssl(address: SocketAddr, arguments: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn of_several_certificates_for_a_name_the_first_that_the_client_understands_is_shown() {
    let dir = Weir::dir();
    let certs = [
        generate(&dir, "ecdsa", "both.test", ECDSA),
        generate(&dir, "rsa", "both.test", "genrsa 2048"),
    ];
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\ntls = [{}]\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n",
            certs.join(", ")
        ),
    );
    for name in [
        "-servername both.test",
        "-servername other.test",
        "-noservername",
    ] {
        for (client, kind) in [
            ("-tls1_2", "ECDSA"),
            ("-tls1_3", "ECDSA"),
            ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "RSA-PSS"),
            ("-tls1_2 -sigalgs RSA+SHA256", "RSA"),
            ("-tls1_3 -sigalgs RSA-PSS+SHA256", "RSA-PSS"),
            ("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA"),
        ] {
            let said = openssl(weir.address, &format!("{name} {client}"));
            let expected = format!("Peer signature type: {kind}\n");
            assert!(said.contains(&expected), "{name} {client}: {said}");
        }
    }
}

#[test]
fn files_are_looked_for_beside_the_configuration() {
    let dir = Weir::dir();
    generate(&dir, "site", "site.test", ECDSA);
    let weir = Weir::start_in(
        &dir,
        "[listen.\"127.0.0.1:0\"]\ntls = { cert = \"site.pem\", key = \"./site.key\" }\n\
         [[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n",
    );
    assert!(openssl(weir.address, "-noservername").contains("CN = site.test"));
}

#[test]
fn alpn_versions_and_ciphers_are_what_the_file_says() {
    let edge = Edge::start(
        ", min_version = \"1.3\", ciphers = \"TLS_AES_128_GCM_SHA256\"",
        "",
    );
    let said = edge.openssl(&["-alpn", "h2,http/1.1"], "");
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    let said = edge.openssl(&["-alpn", "http/1.1"], "");
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    assert!(said.contains("TLS_AES_128_GCM_SHA256"), "{said}");
    assert!(
        edge.openssl(&["-alpn", "spdy/1"], "")
            .contains("no application protocol")
    );
    assert!(
        edge.openssl(&["-tls1_2"], "")
            .contains("alert protocol version")
    );
    assert!(
        edge.openssl(&["-ciphersuites", "TLS_AES_256_GCM_SHA384"], "")
            .contains("handshake failure")
    );
    for failure in ["alpn", "version", "cipher"] {
        edge.wait_for_metric(&failures(failure), 1.0);
    }
}

#[test]
fn sessions_are_resumed_by_ticket_also_after_a_reload() {
    let edge = Edge::start("", "");
    let session = edge.dir.join("session");
    let request = "GET /first HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let session = session.to_str().unwrap();
    for (version, number) in [("-tls1_3", "1.3"), ("-tls1_2", "1.2")] {
        let said = edge.openssl(&[version, "-ign_eof", "-sess_out", session], request);
        assert!(said.contains("New, TLSv"), "{said}");
        let again = request.replace("first", "second");
        let said = edge.openssl(&[version, "-ign_eof", "-sess_in", session], &again);
        assert!(said.contains("Reused, TLSv"), "{said}");
        edge.wait_for_metric(&handshakes(number, "yes"), 1.0);
    }
    let file = std::fs::read_to_string(edge.dir.join("weir.toml")).unwrap();
    edge.weir.reload(&format!(
        "{file}\n[[route]]\nmatch = \"/new\"\nrespond = \"new\"\n"
    ));
    edge.weir.wait_for("reloaded in ");
    let said = edge.openssl(
        &["-tls1_2", "-ign_eof", "-sess_in", session],
        &request.replace("first", "new"),
    );
    assert!(
        said.contains("Reused, TLSv") && said.contains("new"),
        "{said}"
    );
}

#[test]
fn an_ocsp_response_is_stapled() {
    let edge = Edge::prepared(|dir, _| {
        // Not a good one: the client that asks for it says what it thinks of it, and that is enough.
        let file = dir.join("a.ocsp");
        std::fs::write(&file, [0x30, 0x03, 0x0a, 0x01, 0x06]).unwrap();
        (format!(", ocsp = {file:?}"), String::new())
    });
    let said = edge.openssl(&["-status", "-servername", "a.test"], "");
    assert!(
        said.contains("OCSP Response Status: unauthorized"),
        "{said}"
    );
}

#[test]
fn clients_show_certificates() {
    let edge = Edge::prepared(|dir, _| {
        let clients = Authority::new("clients");
        let ca = clients.write(&dir.join("clients.pem"));
        clients.sign(&["alice.test"]).write(dir, "alice");
        Authority::new("nobody")
            .sign(&["eve.test"])
            .write(dir, "eve");
        clients.sign_until(&["old.test"], 2021).write(dir, "old");
        let keys = format!(", client_ca = {ca:?}, client_headers = true");
        let route = "[[route]]\nmatch = { path = \"/alice\", client_cert = \"DNS:alice.test\" }\nrespond = \"hello alice\"\n";
        (keys, route.to_owned())
    });
    let path = |name: &str| edge.dir.join(name).to_str().unwrap().to_owned();
    let show = |name: &str| {
        [
            "--cert".to_owned(),
            path(&format!("{name}.pem")),
            "--key".to_owned(),
            path(&format!("{name}.key")),
        ]
    };
    let ask = |name: &str, more: &[&str], path: &str| {
        let shown = show(name);
        let shown: Vec<_> = shown
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        edge.curl(&shown, "a.test", path)
    };
    let spoof = [
        "-H",
        "X-Client-Cert-Subject: CN=admin",
        "-H",
        "x-client-cert-san: DNS:admin",
    ];
    for version in ["1.2", "1.3"] {
        let version = ["--tls-max", version];
        let more: Vec<_> = spoof.iter().chain(&version).copied().collect();
        assert_eq!(
            ask("alice", &more, "/").unwrap(),
            "https CN=alice.test DNS:alice.test, IP:127.0.0.1"
        );
    }
    assert_eq!(ask("alice", &[], "/alice").unwrap(), "hello alice");
    assert_eq!(
        edge.weir.entry("/alice").text("client_cert"),
        "CN=alice.test"
    );
    // Whatever curl calls it, it is refused and counted.
    assert!(ask("eve", &[], "/").is_err());
    assert!(ask("old", &[], "/").is_err());
    assert!(edge.curl(&[], "a.test", "/").is_err());
    edge.wait_for_metric(&failures("peer_certificate_unknown_issuer"), 1.0);
    edge.wait_for_metric(&failures("peer_certificate_expired"), 1.0);
    edge.wait_for_metric(&failures("peer_certificate_missing"), 1.0);
}

#[test]
fn a_certificate_may_be_optional_and_nobody_makes_one_up() {
    let edge = Edge::prepared(|dir, _| {
        let clients = Authority::new("clients");
        let ca = clients.write(&dir.join("clients.pem"));
        (
            format!(", client_ca = {ca:?}, client_cert = \"optional\", client_headers = true"),
            String::new(),
        )
    });
    let spoof = ["-H", "X-Client-Cert-Subject: CN=admin"];
    assert_eq!(edge.curl(&spoof, "a.test", "/").unwrap(), "https  ");
}

#[test]
fn a_certificate_is_swapped_under_load_and_a_bad_one_is_not() {
    let edge = Edge::start("", "");
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (edge, stop, done) = (&edge, stop.clone(), done.clone());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = edge.connect();
                    for _ in 0..3 {
                        ask(&mut stream, "/load");
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ran = |more: usize| {
            let goal = done.load(Ordering::Relaxed) + more;
            eventually("load", || {
                (done.load(Ordering::Relaxed) >= goal).then_some(())
            });
        };
        ran(3);
        edge.ca
            .sign(&["a.test", "fresh.test"])
            .write(&edge.dir, "a");
        edge.weir.wait_for("certificates have changed");
        ran(3);
        assert!(edge.curl(&[], "fresh.test", "/").is_ok());
        // A key that is another's: the former pair stays, and everybody says so.
        std::fs::write(edge.dir.join("a.key"), &edge.ca.sign(&["x.test"]).key).unwrap();
        edge.weir.wait_for("cannot be used, the former ones stay");
        ran(3);
        assert!(edge.curl(&[], "fresh.test", "/").is_ok());
        stop.store(true, Ordering::Relaxed);
    });
    // A look between the two files of a pair finds them not to fit as well.
    assert!(edge.weir.metric("weir_certificates_failed_total") >= 1.0);
    let loaded = edge.weir.metric("weir_certificates_loaded_total");
    let health = edge.weir.admin("/healthz?verbose").text();
    assert!(
        health.contains("it is not the key of the certificate"),
        "{health}"
    );
    // SIGHUP finds the same, and changes nothing either.
    edge.weir.signal(rustix::process::Signal::HUP);
    edge.weir.wait_for("reload failed, nothing has changed");
    assert!(edge.curl(&[], "fresh.test", "/").is_ok());
    edge.ca.sign(&["a.test"]).write(&edge.dir, "a");
    edge.wait_for_metric("weir_certificates_loaded_total", loaded + 1.0);
    assert_eq!(edge.curl(&[], "fresh.test", "/"), Err(60));
}

/// Sends a request and reads its answer, which is short.
#[track_caller]
fn ask(stream: &mut (impl Read + Write), path: &str) -> String {
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

#[test]
fn what_is_not_tls_is_told_so() {
    let edge = Edge::start("", "[listen.\"127.0.0.1:0\".timeouts]\nhead = \"1s\"\n");
    let mut plain = edge.weir.connect();
    plain.send(get("/"));
    let answer = plain.response();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("use https"), "{}", answer.text());
    plain.expect_closed();
    let mut noise = edge.weir.connect();
    noise.send([0x80, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06]);
    drop(noise.rest());
    let silent = edge.weir.connect();
    edge.wait_for_metric(&failures("plain_http"), 1.0);
    edge.wait_for_metric(&failures("not_tls"), 1.0);
    edge.wait_for_metric(&failures("timeout"), 1.0);
    drop(silent);
    drop(edge.weir.connect());
    edge.wait_for_metric(&failures("closed_in_handshake"), 1.0);
}

#[test]
fn the_end_is_said_and_an_end_that_was_not_said_is_an_abort() {
    let edge = Edge::start("", "");
    let mut stream = edge.connect();
    stream
        .write_all(b"GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    // rustls makes an error of an end without close_notify.
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn an_upload_that_is_cut_off_is_never_taken_for_whole() {
    let (dir, ca) = (Weir::dir(), Authority::new("test"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let (begun, has_begun) = std::sync::mpsc::channel();
    let endpoint = Endpoint::script(move |conn| {
        conn.message_head();
        begun.send(()).unwrap();
        let (body, _) = conn.rest();
        assert!(b"half".starts_with(&body), "{body:?}");
    });
    let listener = format!("[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n");
    let weir = Weir::start_in(&dir, &(listener + &route_to(&[&endpoint])));
    let mut stream = connect(weir.address, &ca.pem);
    stream
        .write_all(b"POST /cut HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    stream.flush().unwrap();
    has_begun.recv_timeout(DEADLINE).unwrap();
    stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(weir.entry("/cut").text("reason"), "client_closed");
}

/// An endpoint that speaks TLS with this certificate and follows a script.
fn tls_endpoint(
    issued: &Issued,
    alpn: &[&[u8]],
    script: impl Fn(&mut Stream<'_, ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
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

/// Reads one request's head and says whether there was one.
fn read_head(stream: &mut impl Read) -> bool {
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

#[test]
fn endpoints_are_verified_resumed_and_kept() {
    let (dir, ca) = (Weir::dir(), Authority::new("endpoints"));
    let ca_file = ca.write(&dir.join("ca.pem"));
    let (connections, resumed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (connections.clone(), resumed.clone());
    let good = tls_endpoint(&ca.sign(&["good.test"]), &[b"http/1.1"], move |stream| {
        counted.0.fetch_add(1, Ordering::Relaxed);
        while read_head(stream) {
            let kind = format!(
                "{:?} {:?}",
                stream.conn.handshake_kind(),
                stream.conn.server_name()
            );
            if kind.contains("Resumed") {
                counted.1.fetch_add(1, Ordering::Relaxed);
            }
            let body = format!("{:>60000}", stream.conn.server_name().unwrap_or("none"));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let expired = tls_endpoint(&ca.sign_until(&["old.test"], 2021), &[], |stream| {
        read_head(stream);
    });
    let plain = Endpoint::script(|conn| {
        conn.send("HTTP/1.1 400 Bad Request\r\n\r\n");
        let (bytes, _) = conn.rest();
        let in_the_clear = bytes.windows(4).any(|word| word == b"POST");
        assert!(!in_the_clear, "nothing of a request is sent in the clear");
    });
    let upstream = |name: &str, address: &str, tls: &str| {
        format!(
            "[upstream.{name}]\nservers = [\"https://{address}\"]\ntls = {{ {tls} }}\n\
             [[route]]\nmatch = \"/{name}\"\nto = \"{name}\"\n"
        )
    };
    let (ca, good) = (format!("ca = {ca_file:?}"), good.to_string());
    let weir = Weir::start_in(
        &dir,
        &[
            upstream("good", &good, &format!("{ca}, server_name = \"good.test\"")),
            upstream("name", &good, &format!("{ca}, server_name = \"bad.test\"")),
            upstream("unknown", &good, ""),
            upstream("off", &good, "verify = \"off\""),
            upstream("expired", &expired.to_string(), &ca),
            upstream("plain", &plain.name, &ca),
        ]
        .concat(),
    );
    let mut client = weir.connect();
    for _ in 0..3 {
        client.send(get("/good"));
        assert_eq!(client.response().text().trim(), "good.test");
    }
    assert_eq!(
        connections.load(Ordering::Relaxed),
        1,
        "kept for the next request"
    );
    assert_eq!(weir.ask(get("/off")).status(), 200);
    for (path, reason) in [
        ("/name", "upstream_tls_certificate"),
        ("/unknown", "upstream_tls_certificate"),
        ("/expired", "upstream_tls_certificate"),
        ("/plain", "upstream_tls_failed"),
    ] {
        assert_eq!(weir.ask(post(path, "body")).status(), 502, "{path}");
        let entry = weir.entry(path);
        assert_eq!(entry.text("reason"), reason, "{path}");
        assert!(
            entry.number("attempts") >= 2.0,
            "nothing of the request was sent: it is tried again"
        );
    }
    assert_eq!(
        weir.metric("weir_upstream_tls_unverified{upstream=\"off\"}"),
        1.0
    );
    assert!(
        weir.stderr
            .so_far()
            .iter()
            .any(|line| line.contains("are not verified"))
    );
    // More at once than one connection can carry: another is made, and its session resumed.
    let clients: Vec<_> = (0..8).map(|_| weir.connect()).collect();
    clients.iter().for_each(|client| client.send(get("/good")));
    for mut client in clients {
        assert_eq!(client.response().status(), 200);
    }
    assert!(resumed.load(Ordering::Relaxed) > 0, "sessions are resumed");
}

#[test]
fn an_endpoint_that_cuts_an_answer_off_never_looks_complete() {
    let (dir, ca) = (Weir::dir(), Authority::new("endpoints"));
    let ca_file = ca.write(&dir.join("ca.pem"));
    let address = tls_endpoint(&ca.sign(&["good.test"]), &[], |stream| {
        let mut head = [0; 64];
        let n = stream.read(&mut head).unwrap_or(0);
        let says_goodbye = head[..n].starts_with(b"GET /whole");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
            .unwrap();
        if says_goodbye {
            stream.conn.send_close_notify();
            let _ = stream.conn.complete_io(stream.sock);
        }
        // An attacker can do this to a connection: FIN, but no close_notify.
        stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.sock.read(&mut [0; 64]);
    });
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[upstream.up]\nservers = [\"https://{address}\"]\ntls = {{ ca = {ca_file:?} }}\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n"
        ),
    );
    let whole = weir.ask(get("/whole"));
    assert_eq!((whole.status(), whole.text().as_str()), (200, "half of it"));
    let mut client = weir.connect();
    client.send(get("/cut"));
    let (bytes, end) = client.rest();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        text.contains("half of it") && !text.ends_with("0\r\n\r\n"),
        "{text}"
    );
    assert_eq!(end, End::Reset);
    assert_eq!(weir.entry("/cut").text("reason"), "response_truncated");
}

#[test]
fn a_tunnel_over_tls_ends_in_both_directions() {
    let (dir, ca) = (Weir::dir(), Authority::new("endpoints"));
    let ca_file = ca.write(&dir.join("ca.pem"));
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let address = tls_endpoint(&ca.sign(&["good.test"]), &[], |stream| {
        assert!(read_head(stream));
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .unwrap();
        let mut bytes = [0; 4096];
        while let Ok(n) = stream.read(&mut bytes) {
            if n == 0 {
                break;
            }
            stream.write_all(&bytes[..n]).unwrap();
        }
        stream.conn.send_close_notify();
        let _ = stream.conn.complete_io(stream.sock);
    });
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n\
             [upstream.up]\nservers = [\"https://{address}\"]\ntls = {{ ca = {ca_file:?} }}\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n"
        ),
    );
    let tcp = TcpStream::connect(weir.address).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let tls = ClientConnection::new(Arc::new(client(&ca.pem)), name).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    stream
        .write_all(
            b"GET /t HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
    assert!(read_head(&mut stream));
    let said: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
    let mut back = Vec::new();
    for piece in said.chunks(8_192) {
        stream.write_all(piece).unwrap();
        let mut bytes = vec![0; piece.len()];
        stream.read_exact(&mut bytes).unwrap();
        back.extend(bytes);
    }
    assert!(back == said);
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    assert_eq!(
        stream.read(&mut [0; 16]).unwrap(),
        0,
        "the other side ends with close_notify"
    );
}

#[test]
fn plain_listeners_redirect_to_https() {
    let weir = Weir::start(
        "[listen.\"127.0.0.1:0\"]\nredirect_https = 8443\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n",
    );
    let answer = weir.ask(post("/a?b=c", "body"));
    assert_eq!(answer.status(), 308);
    assert_eq!(
        answer.field("Location"),
        Some("https://weir.test:8443/a?b=c")
    );
    let mut client = weir.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status(), 400);
}

#[test]
fn files_that_cannot_be_used_are_found_with_their_place() {
    let (dir, ca) = (Weir::dir(), Authority::new("a"));
    let good = ca.sign(&["a.test"]).write(&dir, "good");
    ca.sign(&["b.test"]).write(&dir, "other");
    ca.sign_until(&["c.test"], 2021).write(&dir, "old");
    let path = |name: &str| dir.join(name).display().to_string();
    let check = |tls: &str| {
        let file = dir.join("check.toml");
        let text = format!(
            "[listen.\"127.0.0.1:0\"]\n{tls}\n[[route]]\nmatch = \"/*\"\nrespond = \"hello\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("check")
            .arg(&file)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let pair = |cert: &str, key: &str| {
        format!("tls = {{ cert = {:?}, key = {:?} }}", path(cert), path(key))
    };
    let (ok, said) = check(&format!("tls = {{ {good} }}"));
    assert!(ok && !said.contains("warning"), "{said}");
    let (ok, said) = check(&pair("none.pem", "good.key"));
    assert!(
        !ok && said.contains("check.toml:2:16") && said.contains("No such file"),
        "{said}"
    );
    let (ok, said) = check(&pair("good.pem", "other.key"));
    assert!(
        !ok && said.contains("it is not the key of the certificate"),
        "{said}"
    );
    let (ok, said) = check(&pair("good.key", "good.key"));
    assert!(
        !ok && said.contains("there is no certificate in it"),
        "{said}"
    );
    let (ok, said) = check(&pair("good.pem", "good.pem"));
    assert!(
        !ok && said.contains("there is no private key in it"),
        "{said}"
    );
    let (ok, said) = check(&pair("old.pem", "old.key"));
    assert!(
        ok && said.contains("warning") && said.contains("days ago"),
        "{said}"
    );
}

/// A ticket proves that its bearer was here before, not that it has shown a certificate: what one listener hands out
/// must be worth nothing at another that asks for more.
#[test]
fn a_ticket_does_not_stand_in_for_a_certificate() {
    let (dir, ca, clients) = (
        Weir::dir(),
        Authority::new("test"),
        Authority::new("clients"),
    );
    let cert = ca.sign(&["a.test"]).write(&dir, "a");
    let client_ca = clients.write(&dir.join("clients.pem"));
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[listen.\"127.0.0.1:0\"]\ntls = {{ {cert} }}\n\
             [listen.\"127.0.0.3:0\"]\ntls = {{ {cert}, client_ca = {client_ca:?} }}\n\
             [[route]]\nmatch = \"/*\"\nrespond = \"treasure\"\n"
        ),
    );
    let listening = weir.wait_for("listening on ");
    let strict: SocketAddr = listening.split(", ").nth(1).unwrap().parse().unwrap();
    let session = dir.join("session");
    let ask = |address: SocketAddr, arguments: &[&str]| {
        let mut child = Command::new("openssl")
            .args(["s_client", "-ign_eof", "-servername", "a.test", "-connect"])
            .arg(address.to_string())
            .args(arguments)
            .arg(&session)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        // Who is refused may be gone before the request is written.
        let _ = child.stdin.take().unwrap().write_all(request);
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(ask(weir.address, &[version, "-sess_out"]).contains("treasure"));
        let again = ask(weir.address, &[version, "-sess_in"]);
        assert!(
            again.contains("Reused, ") && again.contains("treasure"),
            "{again}"
        );
        let said = ask(strict, &[version, "-sess_in"]);
        assert!(!said.contains("treasure"), "{version}: {said}");
    }
}
