//! A TLS listener's certificates, versions, sessions and files.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::e2e::*;
use crate::edge::*;

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
    assert_eq!(
        (two.text("sni"), three.text("sni")),
        ("a.test".into(), "a.test".into())
    );
    edge.openssl(&["-noservername"], "GET /none HTTP/1.0\r\n\r\n");
    assert_eq!(edge.weir.entry("/none").text("sni"), "");
    assert!(two.text("cipher").contains("GCM") && three.text("cipher").starts_with("TLS13_"));
    edge.wait_for_metric(&handshakes("1.2", "no"), 1.0);
    edge.wait_for_metric(&handshakes("1.3", "no"), 1.0);
    // A connection carries several requests, and uploads arrive complete.
    let upload = "x".repeat(300_000);
    let file = edge.dir.join("upload");
    std::fs::write(&file, &upload).unwrap();
    let data = format!("@{}", file.display());
    edge.curl(&["--data-binary", &data], "a.test", "/up")
        .unwrap();
    let seen = edge.endpoint.requests();
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
    // Clients verify a name that one certificate has and refuse other names.
    assert!(edge.curl(&[], "other.test", "/").is_ok());
    assert_eq!(edge.curl(&[], "unknown.test", "/"), Err(60));
}

/// Makes a key with OpenSSL by these arguments, and a self-signed certificate for `host`, in files `name` of `dir`.
/// Returns the keys for the configuration.
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

/// The output of OpenSSL's client, which does not verify the listener's certificates.
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
    assert!(
        edge.openssl(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "")
            .contains("handshake failure")
    );
    for (failure, times) in [("alpn", 1.0), ("version", 2.0), ("cipher", 1.0)] {
        edge.wait_for_metric(&failures(failure), times);
    }
}

#[test]
fn sessions_are_resumed_by_ticket_also_after_a_reload() {
    let edge = Edge::start("", "");
    let session = |number: &str| format!("{}/session-{number}", edge.dir.display());
    let versions = [("-tls1_3", "1.3"), ("-tls1_2", "1.2")];
    let resume = |version: &str, number: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let said = edge.openssl(
            &[version, "-ign_eof", "-sess_in", &session(number)],
            &request,
        );
        assert!(said.contains("Reused, TLSv"), "{said}");
        said
    };
    for (version, number) in versions {
        let request = "GET /first HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let said = edge.openssl(
            &[version, "-ign_eof", "-sess_out", &session(number)],
            request,
        );
        assert!(said.contains("New, TLSv"), "{said}");
        resume(version, number, "/second");
        edge.wait_for_metric(&handshakes(number, "yes"), 1.0);
    }
    let file = std::fs::read_to_string(edge.dir.join("weir.toml")).unwrap();
    edge.weir.reload(&format!(
        "{file}\n[[route]]\nmatch = \"/new\"\nrespond = \"from the new file\"\n"
    ));
    edge.weir.wait_for("reloaded in ");
    for (version, number) in versions {
        let said = resume(version, number, "/new");
        assert!(said.contains("from the new file"), "{said}");
        edge.wait_for_metric(&handshakes(number, "yes"), 2.0);
    }
}

#[test]
fn an_ocsp_response_is_stapled() {
    let edge = Edge::prepared(|dir, _| {
        // An invalid staple suffices: the client that asked for it reports it.
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
        // The key does not match: Weir keeps the previous pair and reports that.
        std::fs::write(edge.dir.join("a.key"), &edge.ca.sign(&["x.test"]).key).unwrap();
        edge.weir.wait_for("cannot be used; the former ones stay");
        ran(3);
        assert!(edge.curl(&[], "fresh.test", "/").is_ok());
        stop.store(true, Ordering::Relaxed);
    });
    // Reading between the replacement of the two files finds a mismatch as well.
    assert!(edge.weir.metric("weir_certificates_failed_total") >= 1.0);
    let loaded = edge.weir.metric("weir_certificates_loaded_total");
    let health = edge.weir.admin("/healthz?verbose").text();
    assert!(
        health.contains("it is not the key of the certificate"),
        "{health}"
    );
    // SIGHUP finds the same mismatch and changes nothing either.
    edge.weir.signal(rustix::process::Signal::HUP);
    edge.weir.wait_for("reload failed, nothing has changed");
    assert!(edge.curl(&[], "fresh.test", "/").is_ok());
    edge.ca.sign(&["a.test"]).write(&edge.dir, "a");
    edge.wait_for_metric("weir_certificates_loaded_total", loaded + 1.0);
    assert_eq!(edge.curl(&[], "fresh.test", "/"), Err(60));
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

#[test]
fn the_plan_shows_how_tls_is_spoken() {
    let edge = Edge::prepared(|dir, ca| {
        let client_ca = ca.write(&dir.join("clients.pem"));
        let shown = ca.sign(&["shown.test"]).write(dir, "shown");
        let more = format!(
            "[listen.\"127.0.0.3:0\"]\n\
             [upstream.secure]\nservers = [\"https://127.0.0.1:1\"]\n\
             tls = {{ ca = {client_ca:?}, server_name = \"good.test\", {shown} }}\n\
             [[route]]\nmatch = \"/secure\"\nto = \"secure\"\n"
        );
        let tls = format!(", client_ca = {client_ca:?}, min_version = \"1.3\"");
        (tls, more)
    });
    let plan: tinyjson::JsonValue = edge.weir.admin("/plan").text().parse().unwrap();
    let text = |value: &tinyjson::JsonValue| value.get::<String>().unwrap().clone();
    let tls = &plan["listeners"][0]["tls"];
    assert_eq!(text(&tls["min_version"]), "1.3");
    assert_eq!(text(&tls["client_cert"]), "required");
    let shown = &tls["certificates"][0];
    assert!(text(&shown["file"]).ends_with("/a.pem"));
    assert_eq!(text(&shown["subject"]), "CN=a.test");
    assert_eq!(text(&shown["names"][0]), "DNS:a.test");
    assert_eq!(text(&shown["not_after"]), "2049-01-01T00:00:00.000Z");
    assert!(plan["listeners"][1]["tls"].is_null());
    let upstreams: &Vec<_> = plan["upstreams"].get().unwrap();
    let named = |name: &str| {
        upstreams
            .iter()
            .find(|one| text(&one["name"]) == name)
            .unwrap()
    };
    assert!(named("up")["tls"].is_null());
    let tls = &named("secure")["tls"];
    assert!(text(&tls["verify"]).ends_with("/clients.pem"));
    assert_eq!(text(&tls["server_name"]), "good.test");
    assert_eq!(text(&tls["certificates"][0]["subject"]), "CN=shown.test");
}
