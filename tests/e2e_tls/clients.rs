//! Client certificates.

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::DnType;

use crate::e2e::*;
use crate::edge::*;

#[test]
fn clients_show_certificates() {
    let edge = Edge::prepared(|dir, _| {
        let clients = Authority::new("clients");
        let ca = clients.write(&dir.join("clients.pem"));
        clients.sign(&["alice.test"]).write(dir, "alice");
        clients.sign(&["bob.test"]).write(dir, "bob");
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
        ask("bob", &[], "/alice").unwrap(),
        "https CN=bob.test DNS:bob.test, IP:127.0.0.1",
        "the route is alice's"
    );
    assert_eq!(
        edge.weir.entry("/alice").text("client_cert"),
        "CN=alice.test"
    );
    // curl's error varies; Weir refuses the client and counts it.
    assert!(ask("eve", &[], "/").is_err());
    assert!(ask("old", &[], "/").is_err());
    assert!(edge.curl(&[], "a.test", "/").is_err());
    edge.wait_for_metric(&failures("peer_certificate_unknown_issuer"), 1.0);
    edge.wait_for_metric(&failures("peer_certificate_expired"), 1.0);
    edge.wait_for_metric(&failures("peer_certificate_missing"), 1.0);
}

#[test]
fn nothing_in_a_certificate_reads_as_another_item() {
    let edge = Edge::prepared(|dir, _| {
        let clients = Authority::new("clients");
        let ca = clients.write(&dir.join("clients.pem"));
        let subject = [
            (DnType::OrganizationName, "a, O=root\r\nX-Admin: 1"),
            (DnType::CommonName, "\u{e4}\",CN=admin;"),
        ];
        let uris = ["spiffe://a/b,DNS:admin.test", "x:\"a\";b%2Cc\\d"];
        clients.sign_as(&subject, &uris).write(dir, "mallory");
        (
            format!(", client_ca = {ca:?}, client_headers = true"),
            String::new(),
        )
    });
    let path = |end: &str| {
        edge.dir
            .join(format!("mallory.{end}"))
            .to_str()
            .unwrap()
            .to_owned()
    };
    let (cert, key) = (path("pem"), path("key"));
    let told = edge
        .curl(&["--cert", &cert, "--key", &key], "a.test", "/")
        .unwrap();
    assert_eq!(
        told,
        "https CN=\\C3\\A4\\22\\2CCN=admin\\3B,O=a\\2C O=root\\0d\\0aX-Admin: 1 \
         URI:spiffe://a/b%2CDNS:admin.test, URI:x:%22a%22%3Bb%252Cc%5Cd"
    );
    // The log keeps the RFC 4514 form in one JSON string.
    assert_eq!(
        edge.weir.entry("/").text("client_cert"),
        "CN=\u{e4}\\\"\\,CN=admin\\;,O=a\\, O=root\\0d\\0aX-Admin: 1"
    );
}

#[test]
fn an_optional_certificate_cannot_be_forged() {
    let edge = Edge::prepared(|dir, _| {
        let clients = Authority::new("clients");
        let ca = clients.write(&dir.join("clients.pem"));
        (
            format!(", client_ca = {ca:?}, client_cert = \"optional\", client_headers = true"),
            String::new(),
        )
    });
    let spoof = [
        "-H",
        "X-Client-Cert-Subject: CN=admin",
        "-H",
        "x-client-cert-san: DNS:admin.test",
        "-H",
        "X-Client-Cert-San: URI:spiffe://admin",
    ];
    assert_eq!(edge.curl(&spoof, "a.test", "/").unwrap(), "https  ");
}

/// Requests a page with OpenSSL's client. Returns its output.
fn ask_and_leave(address: SocketAddr, arguments: &[&OsStr]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    // A refused client may see the end before it writes its request.
    let _ = child.stdin.take().unwrap().write_all(request);
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A ticket proves an earlier session and not a certificate: a ticket from one listener must be worthless at another
/// that demands a certificate.
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
        let name = ["-servername", "a.test"].map(OsStr::new);
        let arguments = arguments.iter().map(OsStr::new);
        let arguments: Vec<_> = name
            .into_iter()
            .chain(arguments)
            .chain([session.as_os_str()])
            .collect();
        ask_and_leave(address, &arguments)
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

/// A resumed session shows no certificate, so Weir checks that the original one has not expired since.
#[test]
fn a_ticket_does_not_outlive_the_certificate() {
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
            "[listen.\"127.0.0.1:0\"]\ntls = {{ {cert}, client_ca = {client_ca:?} }}\n\
             [[route]]\nmatch = \"/*\"\nrespond = \"treasure\"\n"
        ),
    );
    let ask = |version: &str, how: &str, session: &Path| {
        let (cert, key) = (dir.join("brief.pem"), dir.join("brief.key"));
        let shown = [
            "-cert".as_ref(),
            cert.as_os_str(),
            "-key".as_ref(),
            key.as_os_str(),
        ];
        let rest = [version.as_ref(), how.as_ref(), session.as_os_str()];
        ask_and_leave(weir.address, &[&shown[..], &rest].concat())
    };
    clients
        .sign_for(&["brief.test"], Duration::from_secs(6))
        .write(&dir, "brief");
    let versions = ["-tls1_2", "-tls1_3"].map(|version| (version, dir.join(version)));
    for (version, session) in &versions {
        assert!(ask(version, "-sess_out", session).contains("treasure"));
        let again = ask(version, "-sess_in", session);
        assert!(
            again.contains("Reused, ") && again.contains("treasure"),
            "{again}"
        );
    }
    for (version, session) in &versions {
        eventually("the end of the certificate", || {
            let said = ask(version, "-sess_in", session);
            assert!(said.contains("Reused, "), "{said}");
            (!said.contains("treasure")).then_some(())
        });
    }
    let refused = weir.metric(&failures("peer_certificate_expired"));
    assert_eq!(refused, 2.0);
}

/// Weir reads a changed revocation list again and rejects tickets from before.
#[test]
fn a_revoked_certificate_is_refused_as_soon_as_the_list_has_it() {
    let clients = Authority::new("clients");
    let edge = Edge::prepared(|dir, _| {
        let ca = clients.write(&dir.join("clients.pem"));
        clients
            .sign_numbered(&["alice.test"], 7)
            .write(dir, "alice");
        clients.sign_numbered(&["bob.test"], 8).write(dir, "bob");
        let crl = dir.join("clients.crl");
        std::fs::write(&crl, clients.revoke(&[8])).unwrap();
        let keys = format!(", client_ca = {ca:?}, client_crl = {crl:?}");
        (keys, String::new())
    });
    let ask = |name: &str| {
        let path = |end: &str| edge.dir.join(format!("{name}.{end}")).display().to_string();
        edge.curl(
            &["--cert", &path("pem"), "--key", &path("key")],
            "a.test",
            "/",
        )
    };
    assert!(ask("alice").is_ok());
    assert!(ask("bob").is_err());
    edge.wait_for_metric(&failures("peer_certificate_revoked"), 1.0);
    let session = edge.dir.join("session");
    let (alice, key) = (edge.dir.join("alice.pem"), edge.dir.join("alice.key"));
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let resume = |how: &str| {
        let texts = [&alice, &key, &session].map(|path| path.display().to_string());
        let [alice, key, session] = &texts;
        let arguments = [
            "-tls1_2", "-ign_eof", "-cert", alice, "-key", key, how, session,
        ];
        edge.openssl(&arguments, request)
    };
    assert!(resume("-sess_out").contains("200 OK"));
    assert!(resume("-sess_in").contains("Reused, "));
    let fresh = edge.dir.join("fresh.crl");
    std::fs::write(&fresh, clients.revoke(&[7])).unwrap();
    std::fs::rename(&fresh, edge.dir.join("clients.crl")).unwrap();
    edge.weir.wait_for("certificates have changed");
    assert!(ask("alice").is_err());
    let said = resume("-sess_in");
    assert!(!said.contains("200 OK"), "{said}");
    edge.wait_for_metric(&failures("peer_certificate_revoked"), 2.0);
    assert!(ask("bob").is_ok());
}
