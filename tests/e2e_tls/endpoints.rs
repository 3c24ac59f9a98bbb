//! TLS to endpoints.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConnection, StreamOwned};

use crate::e2e::*;
use crate::edge::*;

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
    // More concurrent requests than one connection carries: Weir opens another and resumes the session.
    let clients: Vec<_> = (0..8).map(|_| weir.connect()).collect();
    clients.iter().for_each(|client| client.send(get("/good")));
    for mut client in clients {
        assert_eq!(client.response().status(), 200);
    }
    assert!(resumed.load(Ordering::Relaxed) > 0, "sessions are resumed");
}

/// `openssl req -x509` makes such a certificate by default.
#[test]
fn a_certificate_that_is_an_authority_is_refused_in_words_that_help() {
    let (dir, ca) = (Weir::dir(), Authority::new("endpoints"));
    let ca_file = ca.write(&dir.join("ca.pem"));
    let address = tls_endpoint(&ca.own_certificate(), &[], |stream| {
        read_head(stream);
    });
    let weir = Weir::start_in(
        &dir,
        &format!(
            "[upstream.up]\nservers = [\"https://{address}\"]\ntls = {{ ca = {ca_file:?} }}\n\
             [[route]]\nmatch = \"/*\"\nto = \"up\"\n"
        ),
    );
    assert_eq!(weir.ask(post("/", "body")).status(), 502);
    let entry = weir.entry("/");
    assert_eq!(entry.text("reason"), "upstream_tls_certificate");
    eventually("why, in words that help", || {
        let lines = weir.stderr.so_far();
        let said = lines
            .iter()
            .any(|line| line.contains("CA:FALSE` makes one that can"));
        said.then_some(())
    });
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
        // An attacker can send a FIN, but no close_notify.
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
fn endpoints_are_shown_a_certificate() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (dir, ca, clients) = (
            Weir::dir(),
            Authority::new("endpoints"),
            Authority::new("clients"),
        );
        let ca_file = ca.write(&dir.join("ca.pem"));
        let right = clients.sign(&["weir.test"]).write(&dir, "right");
        let wrong = Authority::new("nobody")
            .sign(&["weir.test"])
            .write(&dir, "wrong");
        let config = server(&ca.sign(&["good.test"]), Some(&clients), &[version]);
        let mut offers_http2 = config.clone();
        offers_http2.alpn_protocols = vec![b"h2".to_vec()];
        let http2 = tls_endpoint_with(offers_http2, |stream| {
            let _ = stream.read(&mut [0; 64]);
        });
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = shown.clone();
        let address = tls_endpoint_with(config, move |stream| {
            if read_head(stream) {
                let chain = stream.conn.peer_certificates().unwrap();
                seen.lock().unwrap().push(chain[0].to_vec());
                stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
                    )
                    .unwrap();
                stream.conn.send_close_notify();
                let _ = stream.conn.complete_io(stream.sock);
            }
        });
        let upstream = |name: &str, address: SocketAddr, cert: &str| {
            format!(
                "[upstream.{name}]\nservers = [\"https://{address}\"]\ntls = {{ ca = {ca_file:?}, {cert} }}\n\
                 [[route]]\nmatch = \"/{name}\"\nto = \"{name}\"\n"
            )
        };
        let weir = Weir::start_in(
            &dir,
            &[
                upstream("right", address, &right),
                upstream("wrong", address, &wrong),
                upstream("none", address, ""),
                upstream("http2", http2, &wrong),
            ]
            .concat(),
        );
        assert_eq!(weir.ask(get("/right")).status(), 200);
        for path in ["/wrong", "/none", "/http2"] {
            for request in [get(path), post(path, "body")] {
                assert_eq!(weir.ask(request).status(), 502, "{path}");
            }
            let entry = weir.entry(path);
            assert_eq!(
                entry.text("reason"),
                "upstream_tls_alert",
                "{path} {version:?}"
            );
        }
        // Weir shows the new certificate as soon as the files change, and does not resume sessions of the old one.
        clients
            .sign(&["weir.test", "fresh.test"])
            .write(&dir, "right");
        weir.wait_for("certificates have changed");
        assert_eq!(weir.ask(get("/right")).status(), 200);
        let names: Vec<_> = shown
            .lock()
            .unwrap()
            .iter()
            .map(|one| one.windows(10).any(|bytes| bytes == b"fresh.test"))
            .collect();
        assert_eq!(names, [false, true]);
        // A corrected file takes effect without a restart.
        clients.sign(&["weir.test"]).write(&dir, "wrong");
        eventually("a change of certificates", || {
            let loaded = weir.metric("weir_certificates_loaded_total");
            (loaded >= 2.0).then_some(())
        });
        assert_eq!(weir.ask(post("/wrong", "body")).status(), 200);
    }
}
